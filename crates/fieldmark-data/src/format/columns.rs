//! Reads the fields of a JSON row: strings, and images in the forms of LLaMA-Factory and the released TAPO loader (a
//! path, a mapping with `path`, a list of either).

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::error::RowProblem;

pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

pub(crate) fn object(value: &Value) -> Result<&Map<String, Value>, RowProblem> {
    let name = match value {
        Value::Object(object) => return Ok(object),
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
    };
    Err(RowProblem::NotAnObject(name))
}

pub(crate) fn string<'a>(object: &'a Map<String, Value>, field: &str) -> Result<&'a str, RowProblem> {
    match object.get(field) {
        None => Err(RowProblem::MissingField(field.into())),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(RowProblem::WrongType { field: field.into(), expected: "a string", found: kind_of(other) }),
    }
}

/// A string that is not blank.
pub(crate) fn filled<'a>(object: &'a Map<String, Value>, field: &str) -> Result<&'a str, RowProblem> {
    let text = string(object, field)?;
    if text.trim().is_empty() {
        return Err(RowProblem::Empty(field.into()));
    }
    Ok(text)
}

/// The image paths of a column; none if the column is missing or null.
pub(crate) fn images(object: &Map<String, Value>, column: &str) -> Result<Vec<PathBuf>, RowProblem> {
    match object.get(column) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|value| image(value, column)).collect(),
        Some(value) => Ok(vec![image(value, column)?]),
    }
}

fn image(value: &Value, column: &str) -> Result<PathBuf, RowProblem> {
    let path = match value {
        Value::String(path) => path,
        Value::Object(mapping) => match (mapping.get("bytes"), mapping.get("path")) {
            (None | Some(Value::Null), Some(Value::String(path))) => path,
            (Some(bytes), _) if !bytes.is_null() => {
                return Err(RowProblem::EmbeddedImage(column.into()));
            }
            _ => return Err(RowProblem::MissingField(format!("{column}.path"))),
        },
        other => {
            return Err(RowProblem::WrongType {
                field: column.into(),
                expected: "a path or a list of paths",
                found: kind_of(other),
            });
        }
    };
    if path.trim().is_empty() {
        return Err(RowProblem::Empty(column.into()));
    }
    Ok(PathBuf::from(path))
}
