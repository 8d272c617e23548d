//! `--set key=value`: the value is TOML, or the text itself where the key takes a text.
//!
//! `output=20261127` names a folder, not a number, so the schema decides what a value that looks like one is.

use serde_json::Value as Json;
use toml::{Table, Value, de::DeValue};

use super::{document::Recipe, error::RecipeError, keys::inside};

/// Reads `key=value` as a table with this one key.
///
/// # Errors
/// Returns an error if the text is not of this form.
pub(super) fn parse_override(text: &str) -> Result<Table, RecipeError> {
    let wrong = || RecipeError::Override { text: text.into() };
    let (key, given) = text.split_once('=').ok_or_else(wrong)?;
    let given = given.trim();
    let quoted = Value::String(given.into());
    let parsed = format!("{key} = {given}").parse().or_else(|_| format!("{key} = {quoted}").parse());
    let mut table: Table = parsed.map_err(|_| wrong())?;
    let path = path_of(key).ok_or_else(wrong)?;
    if let Some((value, node)) = at(&mut table, &path) {
        as_text(value, node, given);
    }
    Ok(table)
}

/// The names in a dotted key, which may be quoted.
fn path_of(key: &str) -> Option<Vec<String>> {
    let mut table: Table = format!("{key} = 0").parse().ok()?;
    let mut path = Vec::new();
    loop {
        let (name, value) = table.into_iter().next()?;
        path.push(name);
        match value {
            Value::Table(inner) => table = inner,
            _ => return Some(path),
        }
    }
}

/// The value at `path` and its node in the schema, if recipes have this key.
fn at<'a>(table: &'a mut Table, path: &[String]) -> Option<(&'a mut Value, &'static Json)> {
    let (first, rest) = path.split_first()?;
    let mut value = table.get_mut(first)?;
    let mut node = inside(Recipe::schema(), first)?;
    for name in rest {
        (value, node) = (value.get_mut(name)?, inside(node, name)?);
    }
    Some((value, node))
}

/// Replaces a number, date or boolean by the text that was given for it, if the key takes a text or a list of texts.
fn as_text(value: &mut Value, node: &Json, given: &str) {
    if takes_text(node) && !matches!(value, Value::String(_) | Value::Array(_) | Value::Table(_)) {
        *value = Value::String(given.into());
    }
    let Some(items) = node.get("items").filter(|items| takes_text(items)) else { return };
    // The parsed elements have lost their spelling: 007 is not 7, and 1.10 is not 1.1.
    let Ok(parsed) = DeValue::parse(given) else { return };
    let DeValue::Array(spans) = parsed.get_ref() else { return };
    for (element, span) in value.as_array_mut().into_iter().flatten().zip(spans.iter()) {
        as_text(element, items, given.get(span.span()).unwrap_or_default());
    }
}

/// Returns true if the only values that a key takes are texts.
fn takes_text(node: &Json) -> bool {
    let is_text = |node: &Json| node["type"] == "string" || node["const"].is_string();
    is_text(node) || node["oneOf"].as_array().is_some_and(|kinds| kinds.iter().all(is_text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_takes_a_text_keeps_what_was_given() {
        for (text, key, expected) in [
            ("output=20261127", "output", "20261127"),
            ("output = 2026-11-27 ", "output", "2026-11-27"),
            ("output=1_000.50", "output", "1_000.50"),
            ("output=0x1F", "output", "0x1F"),
            ("output=007", "output", "007"),
            ("output=nan", "output", "nan"),
            ("output=\"5\"", "output", "5"),
            ("output=5#6", "output", "5#6"),
            ("data.question=true", "data.question", "true"),
            ("model.dtype=32", "model.dtype", "32"),
            ("data.prefixes.\"a.b\"=7", "data.prefixes.a.b", "7"),
        ] {
            let table = parse_override(text).unwrap();
            let mut found = &Value::Table(table);
            while let Value::Table(inner) = found {
                found = inner.values().next().unwrap();
            }
            assert_eq!(found.as_str(), Some(expected), "{text}: {key}");
        }
        let files = parse_override("eval.files=[20261127, \"b\", 1.10]").unwrap();
        assert_eq!(files["eval"]["files"], Value::from(vec!["20261127", "b", "1.10"]));
    }

    #[test]
    fn other_keys_keep_the_types_of_toml() {
        let value = |text: &str, section: &str, key: &str| parse_override(text).unwrap()[section][key].clone();
        assert_eq!(value("sft.epochs=3", "sft", "epochs"), Value::Integer(3));
        assert_eq!(value("data.check=false", "data", "check"), Value::Boolean(false));
        assert_eq!(value("tapo.rewards={ format = 1 }", "tapo", "rewards")["format"], Value::Integer(1));
        assert_eq!(value("eval.worlds=[1]", "eval", "worlds"), Value::from(vec!["1"]));
        // An inline table is TOML already.
        assert_eq!(parse_override("data={ images = 5 }").unwrap()["data"]["images"], Value::Integer(5));
    }
}
