//! Reads conversations in any of their forms. The fields of a row decide which form it has, so that a file may mix them.

use std::path::Path;

use serde_json::{Map, Value};

use super::alpaca;
use super::example::SftExample;
use super::sharegpt::ShareGptFormat;
use crate::error::{DataError, RowProblem};
use crate::format::columns::object;
use crate::format::reader::{ReadLimits, read_records};

impl SftExample {
    /// Reads one row in the form that its fields show.
    ///
    /// # Errors
    /// Returns the first problem of the row, or an error that names the forms if it has none of them.
    pub fn parse(row: usize, value: &Value) -> Result<Self, RowProblem> {
        let columns = object(value)?;
        match ShareGptFormat::of(columns) {
            Some(format) => format.parse(row, value),
            None if alpaca::is_alpaca(columns) => alpaca::parse(row, columns),
            None => Err(RowProblem::NoConversation(columns.keys().cloned().collect::<Vec<_>>().join(", "))),
        }
    }

    /// Whether a row has the fields of a conversation.
    pub(crate) fn is_conversation(columns: &Map<String, Value>) -> bool {
        ShareGptFormat::of(columns).is_some() || alpaca::is_alpaca(columns)
    }
}

/// Reads a file of conversations. Without `format`, the fields of each row decide its form.
///
/// # Errors
/// Returns the first bad row, with file and row; the errors of [`read_records`]; or an error if the file is empty.
pub fn read_conversations(path: &Path, format: Option<&ShareGptFormat>) -> Result<Vec<SftExample>, DataError> {
    let records = read_records(path, ReadLimits::default())?;
    let mut examples = Vec::with_capacity(records.rows.len());
    for record in records.rows {
        let record = record?;
        let example = match format {
            Some(format) => format.parse(record.row, &record.value),
            None => SftExample::parse(record.row, &record.value),
        };
        examples.push(example.map_err(|problem| DataError::row(path, record.row, problem))?);
    }
    if examples.is_empty() {
        return Err(DataError::file(path, "no rows; give a file with conversations"));
    }
    Ok(examples)
}
