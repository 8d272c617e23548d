//! The JSON schema of a recipe (draft 2020-12), generated from its types, and the list of keys that it is to the reader.
//!
//! `schemars` describes each type on its own; here the schema is fitted to how a recipe is read: TOML has no null, a
//! section may be given in part, and its defaults are those of the place where it stands (`sft.adamw`, `tapo.adamw`).

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::{Recipe, read::table_of};
use crate::device::nearest;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    // Without references: the tree of the schema is then the tree of the keys.
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Recipe>().to_value();
    let defaults = serde_json::to_value(table_of(&Recipe::default())).unwrap_or_default();
    fit(&mut schema, Some(&defaults));
    schema
});

impl Recipe {
    /// The JSON schema of a recipe, with a description and a default of every key that has one.
    ///
    /// ```
    /// let schema = fieldmark::recipe::Recipe::schema();
    /// assert_eq!(schema["properties"]["sft"]["properties"]["epochs"]["default"], 10);
    /// ```
    pub fn schema() -> &'static Value {
        &SCHEMA
    }

    /// The whole key of a setting that a stage names by its end, such as `sft.schedule.lr` for `lr` in `sft`.
    pub fn key_of(section: &str, end: &str) -> String {
        let (start, end) = (format!("{section}."), format!(".{end}"));
        let mut found = keys(&SCHEMA, "").into_iter().filter(|key| key.starts_with(&start) && key.ends_with(&end));
        found.next().unwrap_or_else(|| format!("{section}{end}"))
    }
}

fn fit(node: &mut Value, default: Option<&Value>) {
    drop_null(node);
    let Some(map) = node.as_object_mut() else { return };
    let is_section = map.contains_key("properties");
    match default {
        Some(value) if !is_section => _ = map.insert("default".into(), value.clone()),
        _ if is_section || map.get("default").is_some_and(Value::is_null) => _ = map.remove("default"),
        _ => {}
    }
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    for unwanted in ["required", "format"] {
        map.remove(unwanted);
    }
    for inner in ["items", "additionalProperties"] {
        map.get_mut(inner).into_iter().for_each(|node| fit(node, None));
    }
    for (name, node) in map.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        fit(node, default.and_then(|default| default.get(name)));
    }
}

/// An optional value is one that may be left out.
fn drop_null(node: &mut Value) {
    let null = json!({ "type": "null" });
    let Some(map) = node.as_object_mut() else { return };
    for list in ["type", "enum", "anyOf"] {
        if let Some(Value::Array(values)) = map.get_mut(list) {
            values.retain(|value| !value.is_null() && value != "null" && *value != null);
        }
    }
    if let Some(Value::Array(types)) = map.get("type")
        && let [only] = &types[..]
    {
        map["type"] = only.clone();
    }
    if let Some(Value::Array(kinds)) = map.get("anyOf")
        && let [Value::Object(only)] = &kinds[..]
    {
        let only = only.clone();
        map.remove("anyOf");
        // What is said of the key comes before what is said of its type.
        only.into_iter().for_each(|(name, value)| _ = map.entry(name).or_insert(value));
    }
}

/// What may stand at a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// A table whose keys are these.
    Section(&'static Map<String, Value>),
    /// A table whose keys are the user's own.
    Map,
    /// A value.
    Leaf,
}

impl Place {
    /// The place of a key; `None` if there is no such key.
    pub(super) fn of(path: &[String]) -> Option<Self> {
        let mut node: &'static Value = &SCHEMA;
        for name in path {
            node = node.get("properties")?.get(name)?;
        }
        Some(Self::at(node))
    }

    /// The place that a node of the schema describes.
    pub(super) fn at(node: &'static Value) -> Self {
        match node.get("properties").and_then(Value::as_object) {
            Some(inside) => Self::Section(inside),
            None if node.get("additionalProperties").is_some_and(Value::is_object) => Self::Map,
            None => Self::Leaf,
        }
    }
}

/// The nearest key of the same section, the same name in another section, the nearest of all; else what there is.
pub(super) fn suggestion(path: &[String]) -> String {
    let (name, section) = path.split_last().map_or(("", &[][..]), |(name, section)| (name.as_str(), section));
    let siblings: Vec<&str> = match Place::of(section) {
        Some(Place::Section(inside)) => inside.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    };
    let prefix = if section.is_empty() { String::new() } else { format!("{}.", section.join(".")) };
    let all = keys(&SCHEMA, "");
    let full = path.join(".");
    let elsewhere = |wanted: &str| {
        let same = all.iter().filter(|key| key.rsplit('.').next() == Some(wanted));
        same.max_by_key(|key| common_prefix(key, &full)).cloned()
    };
    let found = nearest(name, siblings.iter().copied())
        .map(|near| format!("{prefix}{near}"))
        .or_else(|| elsewhere(name))
        .or_else(|| nearest(&full, all.iter().map(String::as_str)).map(str::to_owned));
    match found {
        Some(key) => format!("; did you mean `{key}`?"),
        None => format!("; there are {}", siblings.join(", ")),
    }
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count()
}

/// All keys in dotted form, sections after what is in them.
fn keys(node: &Value, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, node) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let key = format!("{prefix}{name}");
        found.extend(keys(node, &format!("{key}.")));
        found.push(key);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_whole_keys() {
        for (section, end, whole) in [
            ("sft", "epochs", "sft.epochs"),
            ("tapo", "lr", "tapo.schedule.lr"),
            ("tapo", "filter.low", "tapo.filter.low"),
            ("sft", "beta1", "sft.adamw.beta1"),
            ("tapo", "other", "tapo.other"),
        ] {
            assert_eq!(Recipe::key_of(section, end), whole);
        }
    }

    #[test]
    fn a_key_says_what_it_is_and_its_default_is_that_of_its_stage() {
        let key = |path: &str| {
            &Recipe::schema()["properties"][path.split_once('.').unwrap().0]["properties"]
                [path.split_once('.').unwrap().1]
        };
        let decay = |stage: &str| &key(&format!("{stage}.adamw"))["properties"]["weight_decay"]["default"];
        assert_eq!((decay("sft"), decay("tapo")), (&json!(0.1), &json!(0.01)));
        assert_eq!(key("model.dtype")["default"], "f32");
        assert_eq!(
            key("eval.limit"),
            &json!({
                "description": "Questions of each file and world, evenly spread; without it, all.",
                "type": "integer",
                "minimum": 0,
            })
        );
        let kinds: Vec<&Value> =
            key("model.dtype")["oneOf"].as_array().unwrap().iter().map(|kind| &kind["const"]).collect();
        assert_eq!(kinds, ["f32", "f16", "bf16"]);
        assert_eq!(key("data.sft")["additionalProperties"], false);
        assert_eq!(key("data.prefixes")["additionalProperties"], json!({ "type": "string" }));
        let text = Recipe::schema().to_string();
        for absent in ["null", "\"required\"", "$ref"] {
            assert!(!text.contains(absent), "{absent}");
        }
    }

    #[test]
    fn null_goes_from_every_form_that_an_option_has() {
        for (given, left) in [
            (json!({ "type": ["string", "null"] }), json!({ "type": "string" })),
            (json!({ "type": ["string", "null"], "enum": ["a", null] }), json!({ "type": "string", "enum": ["a"] })),
            (
                json!({ "description": "own", "anyOf": [{ "description": "type's", "const": "a" }, { "type": "null" }] }),
                json!({ "description": "own", "const": "a" }),
            ),
            (json!({ "type": ["string", "integer"] }), json!({ "type": ["string", "integer"] })),
        ] {
            let mut found = given.clone();
            drop_null(&mut found);
            assert_eq!(found, left, "{given}");
        }
    }
}
