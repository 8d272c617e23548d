//! The JSON schema of a recipe (draft 2020-12), generated from its types.
//!
//! `schemars` describes each type on its own. Here the schema is adapted to recipes: TOML has no null, a section may be
//! given in part, and the same type has different defaults in different sections (`sft.adamw`, `tapo.adamw`).

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::{document::Recipe, table::table_of};

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    // Without references the tree of the schema is the tree of the keys.
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Recipe>().to_value();
    let defaults = serde_json::to_value(table_of(&Recipe::default())).unwrap_or_default();
    fit(&mut schema, Some(&defaults));
    schema
});

impl Recipe {
    /// The JSON schema of a recipe, with the description and the default of every key.
    ///
    /// ```
    /// let schema = fieldmark::recipe::Recipe::schema();
    /// assert_eq!(schema["properties"]["sft"]["properties"]["epochs"]["default"], 10);
    /// ```
    pub fn schema() -> &'static Value {
        &SCHEMA
    }
}

/// Adapts a node and everything below it; `default` is the node's value in the default recipe.
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

/// Removes null: an optional key is left out instead.
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
        // The description of the key takes precedence over that of its type.
        only.into_iter().for_each(|(name, value)| _ = map.entry(name).or_insert(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_what_it_is_and_its_default_is_that_of_its_stage() {
        let key = |path: &str| {
            &Recipe::schema()["properties"][path.split_once('.').unwrap().0]["properties"]
                [path.split_once('.').unwrap().1]
        };
        let decay = |stage: &str| &key(&format!("{stage}.adamw"))["properties"]["weight_decay"]["default"];
        assert_eq!((decay("sft"), decay("tapo")), (&json!(0.1), &json!(0.01)));
        assert_eq!(key("model.dtype")["default"], "f32");
        let limit = key("eval.limit").as_object().unwrap();
        assert!(limit["description"].as_str().is_some_and(|text| !text.is_empty()));
        assert_eq!((limit.len(), &limit["type"], &limit["minimum"]), (3, &json!("integer"), &json!(0)));
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
