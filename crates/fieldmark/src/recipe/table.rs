//! A recipe as TOML: text and table.

use toml::{Table, Value};

use super::document::Recipe;

impl Recipe {
    /// The recipe as TOML with every value, defaults included.
    ///
    /// # Errors
    /// Returns an error if a number is outside TOML's range, which does not happen in practice.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

/// The recipe as a table, parsed from its text so that an f32 of 0.9 is 0.9 and not the f64 closest to it.
pub(super) fn table_of(recipe: &Recipe) -> Table {
    // Only a seed above 2^63 has no TOML form, and no TOML file can contain one.
    recipe.to_toml().ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Sets the value at `path` and adds missing sections on the way.
pub(super) fn set(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            table.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let inner = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}
