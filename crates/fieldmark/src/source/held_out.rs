//! The validation set of a stage: what its recipe asks for, and the rows that are taken from those to train on.

use std::{collections::BTreeSet, mem, path::Path};

use fieldmark_stream::RandomStream;

use crate::error::RunError;

/// Where a validation set comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldOut<'a> {
    /// There is none.
    Nowhere,
    /// A file of its own.
    File(&'a Path),
    /// So many of the rows to train on.
    Rows(usize),
}

impl<'a> HeldOut<'a> {
    /// What `validation` = `file` and `validation_rows` = `count` of `section` ask for. There are `rows` rows, called `all`.
    ///
    /// # Errors
    /// If both ask for something, or no row would be left.
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

/// Takes `count` rows away, drawn by `stream`; the others keep their order.
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
