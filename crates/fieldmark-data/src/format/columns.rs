//! Reads the texts of a JSON row, and refuses columns and tags that would be left out in silence.

use serde_json::{Map, Value};

use crate::answer::truth::{control_token, truth_text, unmatchable};
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
    let mut found = Vec::new();
    for field in ["aliases", "alias"] {
        let wrong =
            |found| RowProblem::WrongType { field: field.into(), expected: "a string or a list of strings", found };
        let mut add = |value: &Value| match value {
            // As pandas writes a list into a column of texts.
            Value::String(text) if text.trim().starts_with('[') && text.trim().ends_with(']') => {
                Err(wrong("a list written as a text"))
            }
            Value::String(text) => {
                found.push(truth_text(text));
                Ok(())
            }
            other => Err(wrong(kind_of(other))),
        };
        match object.get(field) {
            None | Some(Value::Null) => {}
            Some(Value::Array(list)) => list.iter().try_for_each(add)?,
            Some(value) => add(value)?,
        }
    }
    found.retain(|alias| !alias.is_empty());
    Ok(found)
}

/// Whether a value says anything. A column of a data set of many kinds of rows is null or empty in the others; some
/// files hold their lists as text.
pub(crate) fn has_content(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => !["", "[]", "{}", "null", "None"].contains(&text.trim()),
        Value::Array(list) => list.iter().any(has_content),
        Value::Object(object) => object.values().any(has_content),
    }
}

/// Refuses a row with content in a column that other programs put into the prompt and that is not read here.
pub(crate) fn refuse_unread(object: &Map<String, Value>, names: &[&str]) -> Result<(), RowProblem> {
    match names.iter().find(|name| object.get(**name).is_some_and(has_content)) {
        None => Ok(()),
        Some(name) => Err(RowProblem::Unread((*name).into())),
    }
}

/// Columns that no reader here reads.
pub(crate) const UNREAD: [&str; 7] = ["videos", "video", "audios", "audio", "tools", "functions", "tool_calls"];

/// Refuses tags that other programs replace with media, and that would be learned as text here. Refuses the names of control
/// tokens, which would not be text.
pub(crate) fn refuse_tags(text: &str, field: &str) -> Result<(), RowProblem> {
    if let Some(token) = control_token(text) {
        return Err(RowProblem::ControlToken { field: field.into(), token });
    }
    let found = ["<video>", "<audio>"].into_iter().find(|tag| text.contains(tag));
    let found = found.or_else(|| (text.contains("<img>") && text.contains("</img>")).then_some("<img>"));
    found.map_or(Ok(()), |tag| Err(RowProblem::UnreadTag { field: field.into(), tag }))
}
