//! How the value of a key is written. Errors about a value of another type propose it, for every key alike.

use serde_json::Value as Json;
use toml::{Table, Value};

use super::origin::Origin;

/// Returns what is wrong with a value whose type the key does not take, and how to write it. `None` if the type is right.
pub(super) fn wrong_type(node: &Json, path: &[String], value: &Value, origin: &Origin) -> Option<String> {
    if fits(node, value) {
        return None;
    }
    let found = match value {
        Value::Array(_) => "is a list".into(),
        Value::Table(_) => "is a table".into(),
        scalar => format!("is {scalar}"),
    };
    let example = meant(node, value).or_else(|| default(node)).unwrap_or_else(|| sample(node));
    Some(format!("{found}; write {}: {}", words(node)?, written(path, example, origin)))
}

/// Returns true if the key takes values of this type.
fn fits(node: &Json, value: &Value) -> bool {
    if let Some(kinds) = node["oneOf"].as_array() {
        return kinds.iter().any(|kind| fits(kind, value));
    }
    match (node["type"].as_str(), value) {
        _ if node["const"].is_string() => value.is_str(),
        (Some("array"), Value::Array(values)) => values.iter().all(|value| fits(&node["items"], value)),
        (Some("boolean"), value) => value.is_bool(),
        (Some("integer"), &Value::Integer(number)) => node["minimum"].as_i64().is_none_or(|least| number >= least),
        (Some("number"), value) => value.is_float() || value.is_integer(),
        (Some("string"), value) => value.is_str(),
        (Some("object"), value) => value.is_table(),
        (Some("array" | "integer"), _) => false,
        // Nothing is known about the type.
        _ => true,
    }
}

/// What the key takes, in words.
fn words(node: &Json) -> Option<String> {
    let kinds = node["oneOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<String> = kinds.iter().filter_map(|kind| Some(format!("{:?}", kind["const"].as_str()?))).collect();
    if !names.is_empty() {
        return Some(format!("one of {}", names.join(", ")));
    }
    Some(match node["type"].as_str()? {
        "array" => "a list".into(),
        "boolean" => "true or false".into(),
        "integer" => match node["minimum"].as_i64() {
            Some(least) => format!("a whole number, {least} or more"),
            None => "a whole number".into(),
        },
        "number" => "a number".into(),
        "string" => "a text in quotes".into(),
        "object" => "a table".into(),
        _ => return None,
    })
}

/// The value that was meant: without its quotes, in quotes, or in a list.
fn meant(node: &Json, value: &Value) -> Option<Value> {
    let list = |items: Vec<Value>| Some(Value::Array(items)).filter(|list| fits(node, list));
    match value {
        Value::String(text) if node["type"] == "array" => {
            list(text.split(',').map(|item| Value::from(item.trim())).collect())
        }
        Value::String(text) => {
            let table: Table = format!("value = {}", text.trim().to_lowercase()).parse().ok()?;
            let inside = table.get("value").cloned();
            inside.filter(|inside| fits(node, inside))
        }
        Value::Array(_) | Value::Table(_) => None,
        scalar if node["type"] == "array" => list(vec![scalar.clone()]).or_else(|| list(vec![quoted(scalar)])),
        scalar => Some(quoted(scalar)).filter(|text| node["type"] == "string" && fits(node, text)),
    }
}

fn quoted(scalar: &Value) -> Value {
    Value::String(scalar.to_string())
}

fn default(node: &Json) -> Option<Value> {
    let default = Value::try_from(node.get("default")?).ok()?;
    let is_empty = default.as_array().is_some_and(Vec::is_empty) || default.as_str() == Some("");
    (!is_empty && fits(node, &default)).then_some(default)
}

/// A value of the type, where neither the given value nor the default shows one.
fn sample(node: &Json) -> Value {
    if let Some(first) = node["oneOf"][0]["const"].as_str() {
        return first.into();
    }
    match node["type"].as_str() {
        Some("array") => vec![sample(&node["items"])].into(),
        Some("boolean") => true.into(),
        Some("integer") => 1.into(),
        Some("number") => 0.5.into(),
        Some("object") => Value::Table(Table::new()),
        _ => "text".into(),
    }
}

/// The key with the value, as a line of a file or as an option for a shell.
fn written(path: &[String], value: Value, origin: &Origin) -> String {
    match origin {
        Origin::Set(_) => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let set = format!("{}={text}", path.join("."));
            let is_plain = set.chars().all(|c| c.is_alphanumeric() || "._-=/+".contains(c));
            if is_plain { format!("--set {set}") } else { format!("--set '{set}'") }
        }
        Origin::Default | Origin::File(_) => {
            let name = path.last().cloned().unwrap_or_default();
            Table::from_iter([(name, value)]).to_string().trim_end().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::keys::Place;

    #[test]
    fn a_value_of_another_type_is_answered_with_the_right_form() {
        for (key, value, form) in [
            ("eval.files", "\"a.jsonl\"", "a list: files = [\"a.jsonl\"]"),
            ("eval.files", "3", "a list: files = [\"3\"]"),
            ("eval.worlds", "\"closed, open\"", "a list: worlds = [\"closed\", \"open\"]"),
            ("data.unseen_classes", "true", "a list: unseen_classes = [\"true\"]"),
            ("data.check", "\"no\"", "true or false: check = true"),
            ("data.check", "\"False\"", "true or false: check = false"),
            ("data.check", "1", "true or false: check = true"),
            ("sft.epochs", "-1", "a whole number, 0 or more: epochs = 10"),
            ("sft.epochs", "2.5", "a whole number, 0 or more: epochs = 10"),
            ("sft.epochs", "\"3\"", "a whole number, 0 or more: epochs = 3"),
            ("eval.limit", "[1]", "a whole number, 0 or more: limit = 1"),
            ("sft.schedule.lr", "\"1e-4\"", "a number: lr = 0.0001"),
            ("tapo.rewards.format", "\"x\"", "a number: format = 0.5"),
            ("output", "20261127", "a text in quotes: output = \"20261127\""),
            ("data.prefixes.a", "7", "a text in quotes: a = \"7\""),
            ("model.dtype", "32", "one of \"f32\", \"f16\", \"bf16\": dtype = \"f32\""),
        ] {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            let value = format!("x = {value}").parse::<Table>().unwrap()["x"].clone();
            let node = Place::node(&path).unwrap();
            let file = wrong_type(node, &path, &value, &Origin::File("r.toml".into())).unwrap();
            assert!(file.ends_with(&format!("; write {form}")), "{key}: {file}");
            let set = wrong_type(node, &path, &value, &Origin::Set(String::new())).unwrap();
            assert!(set.contains("--set ") && set.contains(&format!("{key}=")), "{set}");
        }
        for (key, value) in [("sft.schedule.lr", "1"), ("eval.worlds", "[\"x\"]"), ("model.dtype", "\"f8\"")] {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            let value = format!("x = {value}").parse::<Table>().unwrap()["x"].clone();
            assert_eq!(wrong_type(Place::node(&path).unwrap(), &path, &value, &Origin::Default), None, "{key}");
        }
    }

    #[test]
    fn an_option_is_written_for_a_shell() {
        let path = ["eval".to_owned(), "files".to_owned()];
        let set = Origin::Set(String::new());
        assert_eq!(written(&path, vec!["a b"].into(), &set), "--set 'eval.files=[\"a b\"]'");
        assert_eq!(written(&path, 0.5.into(), &set), "--set eval.files=0.5");
    }
}
