//! The validation set of a stage: a file, or rows taken from the training data.

use std::{collections::BTreeSet, mem, path::Path};

use fieldmark_stream::RandomStream;

use crate::error::RunError;

/// The origin of a validation set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldOut<'a> {
    /// There is no validation set.
    Nowhere,
    /// A separate file.
    File(&'a Path),
    /// This number of rows, taken from the training data.
    Rows(usize),
}

impl<'a> HeldOut<'a> {
    /// Reads the settings `validation` = `file` and `validation_rows` = `count` of `section`. There are `rows` training
    /// rows; errors call them `all`.
    ///
    /// # Errors
    /// Returns an error if both are set, or if no training row would be left.
    pub fn of(section: &str, file: Option<&'a Path>, count: usize, rows: usize, all: &str) -> Result<Self, RunError> {
        let refuse = |problem: String| {
            Err(RunError::Setting { key: format!("{section}.validation_rows"), value: count.to_string(), problem })
        };
        match file.filter(|file| !file.as_os_str().is_empty()) {
            Some(_) if count > 0 => refuse(format!("must be 0 if `{section}.validation` is set")),
            Some(file) => Ok(Self::File(file)),
            None if count == 0 => Ok(Self::Nowhere),
            None if count >= rows => refuse(format!("must be less than {all}")),
            None => Ok(Self::Rows(count)),
        }
    }
}

/// Removes and returns `count` rows, drawn with `stream`. The others keep their order.
pub fn take_out<T>(rows: &mut Vec<T>, count: usize, stream: &mut RandomStream) -> Vec<T> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    stream.shuffle(&mut order);
    let taken: BTreeSet<usize> = order.into_iter().take(count).collect();
    let mut held = Vec::with_capacity(count);
    for (number, row) in mem::take(rows).into_iter().enumerate() {
        if taken.contains(&number) { held.push(row) } else { rows.push(row) }
    }
    held
}
