//! Other names of classes, which are as right as the name itself. In TOML or JSON, a name with its aliases:
//!
//! ```toml
//! "Granny Smith" = ["Granny", "Grannysmith"]
//! "Key Lime" = "Citrus aurantiifolia"
//! ```

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{alike::normal_form, truth::unmatchable};
use crate::{
    error::DataError,
    format::reader::{ReadLimits, read_text},
};

/// Other names of classes. Names and aliases are compared in the normal form ([`normal_form`]).
///
/// ```
/// let mut aliases = fieldmark_data::Aliases::default();
/// aliases.add("Granny Smith", ["Granny"]);
/// assert_eq!(aliases.of("granny_smith"), ["Granny"]);
/// assert!(aliases.of("Lime").is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, Vec<String>>", into = "BTreeMap<String, Vec<String>>")]
pub struct Aliases {
    /// Name and aliases by the normal form of the name.
    names: BTreeMap<String, (String, Vec<String>)>,
}

/// The aliases of a name in a file: a list, or one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    One(String),
    Many(Vec<String>),
}

impl Aliases {
    /// Reads a file: JSON if its name ends in `.json`, otherwise TOML.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be read or has another form, if an alias has no letter or
    /// digit, or if an alias is another name or the alias of another.
    pub fn read(file: &Path) -> Result<Self, DataError> {
        let (text, _) = read_text(file, ReadLimits::default())?;
        let form = "write each name with its aliases, \"Granny Smith\" = [\"Granny\"] in TOML or {\"Granny Smith\": \
                    [\"Granny\"]} in JSON";
        let wrong = |problem: String| DataError::file(file, format!("{}; {form}", problem.trim_end()));
        let json = file.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        let listed: BTreeMap<String, Listed> = match json {
            true => serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?,
            false => toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?,
        };
        let mut aliases = Self::default();
        for (name, listed) in listed {
            match listed {
                Listed::One(alias) => aliases.add(&name, [alias]),
                Listed::Many(list) => aliases.add(&name, list),
            }
        }
        aliases.check([], file)?;
        Ok(aliases)
    }

    /// Adds aliases of a name. One that is already known, or is the name itself, changes nothing.
    pub fn add(&mut self, name: &str, aliases: impl IntoIterator<Item = impl Into<String>>) {
        let form = normal_form(name);
        let mut fresh: Vec<String> = Vec::new();
        for alias in aliases.into_iter().map(Into::into) {
            let known = |other: &String| normal_form(other) == normal_form(&alias);
            if normal_form(&alias) != form && !self.of(name).iter().chain(&fresh).any(known) {
                fresh.push(alias);
            }
        }
        match self.names.entry(form) {
            Entry::Occupied(mut entry) => entry.get_mut().1.extend(fresh),
            Entry::Vacant(_) if fresh.is_empty() => {}
            Entry::Vacant(entry) => {
                entry.insert((name.to_owned(), fresh));
            }
        }
    }

    /// Adds the aliases of another list.
    pub fn merge(&mut self, other: &Self) {
        for (name, aliases) in other.names.values() {
            self.add(name, aliases.iter().cloned());
        }
    }

    /// The aliases of a name; none if it is unknown.
    pub fn of(&self, name: &str) -> &[String] {
        self.names.get(&normal_form(name)).map_or(&[], |(_, aliases)| aliases)
    }

    /// Whether a name has aliases.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The aliases of these names alone.
    pub fn only<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut few = Self::default();
        names.into_iter().for_each(|name| few.add(name, self.of(name).iter().cloned()));
        few
    }

    /// Returns a note if the list has names and none of them is among `names`, those of the data: then it changes nothing,
    /// perhaps because of a typing error. `from` is where the list comes from.
    pub fn unused_note<'a>(&self, names: impl IntoIterator<Item = &'a str>, from: &str) -> Option<String> {
        let mut known = names.into_iter();
        let (first, _) = self.names.values().next()?;
        let is_used = known.any(|name| self.names.contains_key(&normal_form(name)));
        let problem = "none of its names occurs in the data, so that its aliases change nothing; the first is";
        (!is_used).then(|| format!("{from}: {problem} {first:?}"))
    }

    /// Checks the aliases beside all names of the data, in which `names` may repeat. `file` is where the aliases or the
    /// names come from.
    ///
    /// # Errors
    /// Returns an error that names the alias if no answer can match it, or if it is another name of the data or the
    /// alias of another name: an answer with it would be right for two classes.
    pub fn check<'a>(&self, names: impl IntoIterator<Item = &'a str>, file: &Path) -> Result<(), DataError> {
        let refuse = |problem: String| Err(DataError::file(file, problem));
        let mut owners: BTreeMap<String, &str> = BTreeMap::new();
        owners.extend(self.names.iter().map(|(form, (name, _))| (form.clone(), name.as_str())));
        for name in names {
            owners.entry(normal_form(name)).or_insert(name);
        }
        let mut told: BTreeMap<String, &str> = BTreeMap::new();
        for (name, aliases) in self.names.values() {
            for alias in aliases {
                if let Some(reason) = unmatchable(alias) {
                    return refuse(format!("alias {alias:?} of {name:?} {reason}; correct or remove it"));
                }
                let form = normal_form(alias);
                if let Some(other) = owners.get(&form) {
                    let problem = "is also a class; remove the alias, or make the two one class";
                    return refuse(format!("alias {alias:?} of {name:?}: {other:?} {problem}"));
                }
                if let Some(other) = told.insert(form, name) {
                    return refuse(format!("alias {alias:?} is given to {other:?} and to {name:?}; keep one of them"));
                }
            }
        }
        Ok(())
    }
}

impl From<BTreeMap<String, Vec<String>>> for Aliases {
    fn from(listed: BTreeMap<String, Vec<String>>) -> Self {
        let mut aliases = Self::default();
        listed.into_iter().for_each(|(name, list)| aliases.add(&name, list));
        aliases
    }
}

impl From<Aliases> for BTreeMap<String, Vec<String>> {
    fn from(aliases: Aliases) -> Self {
        aliases.names.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, text: &str) -> Result<Aliases, DataError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        Aliases::read(&file)
    }

    #[test]
    fn toml_and_json_say_the_same() {
        let toml =
            written("a.toml", "\"Granny Smith\" = [\"Granny\", \"granny smith\", \"GRANNY\"]\nLime = \"Limette\"\n");
        let toml = toml.unwrap();
        assert_eq!(toml.of("granny_smith "), ["Granny"]);
        assert_eq!(toml.of("LIME"), ["Limette"]);
        assert!(toml.of("Lemon").is_empty());
        let json = written("a.json", r#"{"Lime": ["Limette"], "Granny Smith": "Granny"}"#).unwrap();
        assert_eq!(json, toml);
        let again: Aliases = serde_json::from_str(&serde_json::to_string(&toml).unwrap()).unwrap();
        assert_eq!(again, toml);
        assert_eq!(toml.only(["Lime", "Lemon"]).names.len(), 1);
    }

    #[test]
    fn an_alias_is_right_for_one_class_only() {
        let mut aliases = Aliases::default();
        aliases.add("Lime", ["Limette"]);
        let file = Path::new("a.toml");
        assert!(aliases.check(["Lime", "lime", "Lemon"], file).is_ok());
        let error = aliases.check(["Lime", "limette"], file).unwrap_err().to_string();
        assert!(error.contains("a.toml") && error.contains("\"Limette\"") && error.contains("\"limette\""), "{error}");
        aliases.add("Key Lime", ["LIMETTE"]);
        let error = aliases.check([], file).unwrap_err().to_string();
        assert!(error.contains("\"Lime\"") && error.contains("\"Key Lime\""), "{error}");
    }

    #[test]
    fn a_list_about_other_classes_is_told() {
        let mut aliases = Aliases::default();
        assert_eq!(aliases.unused_note(["Lime"], "a.toml"), None);
        aliases.add("Key Lime", ["Limette"]);
        assert_eq!(aliases.unused_note(["Lemon", "key_lime"], "a.toml"), None);
        let note = aliases.unused_note(["Lemon", "Limette"], "a.toml").unwrap();
        assert!(note.starts_with("a.toml: ") && note.contains("\"Key Lime\""), "{note}");
    }

    #[test]
    fn a_wrong_file_is_refused_by_its_name() {
        for (name, text, says) in [
            ("a.toml", "Lime = 3\n", "a.toml"),
            ("a.toml", "Lime = [", "a.toml"),
            ("a.json", "[1]", "a.json"),
            ("a.toml", "Lime = [\"?\"]", "\"?\""),
            ("a.toml", "Lime = [\"Lemon\"]\nLemon = [\"Citron\"]", "\"Lemon\""),
        ] {
            let error = written(name, text).unwrap_err();
            assert!(matches!(error, DataError::File { .. }), "{error}");
            assert!(error.to_string().contains(says) && error.to_string().contains(name), "{error}");
        }
    }
}
