//! The keys of a recipe, taken from its schema, and the suggestions for an unknown key.

use serde_json::{Map, Value};

use super::document::Recipe;
use crate::nearest::nearest;

impl Recipe {
    /// The full key of a setting in a section, such as `sft.schedule.lr` for `lr` in `sft`.
    pub fn key_of(section: &str, end: &str) -> String {
        let (start, end) = (format!("{section}."), format!(".{end}"));
        let mut found =
            keys(Self::schema(), "").into_iter().filter(|key| key.starts_with(&start) && key.ends_with(&end));
        found.next().unwrap_or_else(|| format!("{section}{end}"))
    }
}

/// What a key holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// A table with these keys.
    Section(&'static Map<String, Value>),
    /// A table with any keys.
    Map,
    /// A value.
    Leaf,
}

impl Place {
    /// What the key at `path` holds; `None` if no recipe has this key.
    pub(super) fn of(path: &[String]) -> Option<Self> {
        Self::node(path).map(Self::at)
    }

    /// The schema of the key at `path`; `None` if no recipe has this key.
    pub(super) fn node(path: &[String]) -> Option<&'static Value> {
        path.iter().try_fold(Recipe::schema(), |node, name| inside(node, name))
    }

    /// What the key described by a node of the schema holds.
    pub(super) fn at(node: &'static Value) -> Self {
        match node.get("properties").and_then(Value::as_object) {
            Some(inside) => Self::Section(inside),
            None if node.get("additionalProperties").is_some_and(Value::is_object) => Self::Map,
            None => Self::Leaf,
        }
    }
}

/// The schema of the key `name` in a section or in a table with any keys.
pub(super) fn inside<'a>(node: &'a Value, name: &str) -> Option<&'a Value> {
    let key = || node.get("properties").and_then(|keys| keys.get(name));
    key().or_else(|| node.get("additionalProperties").filter(|any| any.is_object()))
}

/// The first keys of a section, in brackets.
pub(super) fn inside_of(place: Place) -> String {
    const SHOWN: usize = 6;
    let Place::Section(keys) = place else { return String::new() };
    let more = if keys.len() > SHOWN { ", …" } else { "" };
    let names: Vec<&str> = keys.keys().take(SHOWN).map(String::as_str).collect();
    format!(" ({}{more})", names.join(", "))
}

/// The known keys that an unknown one may stand for.
///
/// In order of preference: keys of the same name inside its section, all keys of the same name, the closest spelling in
/// its section, the closest spelling of all.
fn candidates(path: &[String]) -> Vec<String> {
    let Some((name, section)) = path.split_last() else { return Vec::new() };
    let all = keys(Recipe::schema(), "");
    let prefix = if section.is_empty() { String::new() } else { format!("{}.", section.join(".")) };
    let same: Vec<&String> = all.iter().filter(|key| key.rsplit('.').next() == Some(name)).collect();
    let inside: Vec<&String> = same.iter().copied().filter(|key| key.starts_with(&prefix)).collect();
    let found = if inside.is_empty() { same } else { inside };
    if !found.is_empty() {
        return found.into_iter().cloned().collect();
    }
    let sibling = nearest(name, siblings(section)).map(|near| format!("{prefix}{near}"));
    let near = || nearest(&path.join("."), all.iter().map(String::as_str)).map(str::to_owned);
    sibling.or_else(near).into_iter().collect()
}

/// The names in a section.
fn siblings(section: &[String]) -> Vec<&'static str> {
    match Place::of(section) {
        Some(Place::Section(inside)) => inside.keys().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The end of an error about an unknown key: the keys it may stand for, or the keys of its section.
pub(super) fn suggestion(path: &[String]) -> String {
    let found: Vec<String> = candidates(path).into_iter().map(|key| format!("`{key}`")).collect();
    match found.split_last() {
        None => {
            let section = path.split_last().map_or(&[][..], |(_, section)| section);
            format!("; the keys here are {}", siblings(section).join(", "))
        }
        Some((only, [])) => format!("; did you mean {only}?"),
        Some((last, rest)) => format!("; did you mean {} or {last}?", rest.join(", ")),
    }
}

/// All keys in dotted form. A section comes after the keys inside it.
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
    fn an_unknown_key_has_every_key_it_may_stand_for() {
        for (unknown, expected) in [
            ("lr", &["sft.schedule.lr", "tapo.schedule.lr"][..]),
            ("schedule", &["sft.schedule", "tapo.schedule"]),
            ("sft.lr", &["sft.schedule.lr"]),
            ("tapo.lr", &["tapo.schedule.lr"]),
            ("model.lr", &["sft.schedule.lr", "tapo.schedule.lr"]),
            ("data.max_pixels", &["data.sft.sizes.max_pixels", "data.tapo.sizes.max_pixels"]),
            ("max_pixels", &["data.sft.sizes.max_pixels", "data.tapo.sizes.max_pixels", "eval.max_pixels"]),
            ("sft.epoch", &["sft.epochs"]),
            ("stf", &["sft"]),
            ("evl", &["eval"]),
            ("model.qqqqqq", &[]),
        ] {
            let path: Vec<String> = unknown.split('.').map(str::to_owned).collect();
            assert_eq!(candidates(&path), expected, "{unknown}");
            let text = suggestion(&path);
            let shown = expected.iter().all(|key| text.contains(&format!("`{key}`")));
            assert!(
                shown && (!expected.is_empty() || text.contains("adapter, text_encoder, dtype")),
                "{unknown}: {text}"
            );
        }
    }
}
