//! Reads the fields of a JSON row: strings, and images in the forms of LLaMA-Factory and the released TAPO loader (a
//! path, a mapping with `path`, a list of either).

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::answer::truth::{truth_text, unmatchable};
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

/// The truth in a field, without tags and white space around it.
pub(crate) fn truth(object: &Map<String, Value>, field: &str) -> Result<String, RowProblem> {
    matchable(&truth_text(filled(object, field)?))
}

/// The text itself, if an answer can match it.
pub(crate) fn matchable(truth: &str) -> Result<String, RowProblem> {
    match unmatchable(truth) {
        None => Ok(truth.to_owned()),
        Some(reason) => Err(RowProblem::Unmatchable { truth: truth.to_owned(), reason }),
    }
}

/// The aliases of the truth, in `aliases` or `alias`: a list, or one. Blank ones do not count.
pub(crate) fn aliases(object: &Map<String, Value>) -> Result<Vec<String>, RowProblem> {
    let Some(field) = ["aliases", "alias"].into_iter().find(|field| object.contains_key(*field)) else {
        return Ok(Vec::new());
    };
    let text = |value: &Value| match value {
        Value::String(text) => Ok(truth_text(text)),
        other => Err(RowProblem::WrongType {
            field: field.into(),
            expected: "a string or a list of strings",
            found: kind_of(other),
        }),
    };
    let found: Vec<String> = match &object[field] {
        Value::Null => Vec::new(),
        Value::Array(list) => list.iter().map(text).collect::<Result<_, _>>()?,
        value => vec![text(value)?],
    };
    Ok(found.into_iter().filter(|alias| !alias.is_empty()).collect())
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
