//! The first difference between two recipes: the same run needs the same settings.

use toml::{Table, Value};

use super::{document::Recipe, table::table_of};

/// A key with different values in two recipes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// The value in the first recipe, as TOML; "nothing" if it has none.
    pub first: String,
    /// The value in the second recipe.
    pub second: String,
}

impl Recipe {
    /// The first key with different values in the two recipes. Keys and sections in `ignored` do not count.
    ///
    /// ```
    /// use fieldmark::recipe::Recipe;
    /// let other = Recipe::default().with_override("sft.epochs=3")?.with_override("output=elsewhere")?;
    /// let found = Recipe::default().difference(&other, &["output"]).unwrap();
    /// assert_eq!((found.key.as_str(), found.second.as_str()), ("sft.epochs", "3"));
    /// # Ok::<(), fieldmark::recipe::RecipeError>(())
    /// ```
    pub fn difference(&self, other: &Self, ignored: &[&str]) -> Option<Difference> {
        differ(&table_of(self), &table_of(other), ignored, "")
    }
}

fn differ(first: &Table, second: &Table, ignored: &[&str], prefix: &str) -> Option<Difference> {
    let names = first.keys().chain(second.keys().filter(|name| !first.contains_key(*name)));
    names.into_iter().find_map(|name| {
        let key = format!("{prefix}{name}");
        if ignored.contains(&key.as_str()) {
            return None;
        }
        match (first.get(name), second.get(name)) {
            (Some(Value::Table(first)), Some(Value::Table(second))) => {
                differ(first, second, ignored, &format!("{key}."))
            }
            (first, second) if first == second => None,
            (first, second) => {
                let shown = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
                Some(Difference { key, first: shown(first), second: shown(second) })
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_found_wherever_it_is() {
        let with = |text: &str| Recipe::default().with_override(text).unwrap();
        let found = |text: &str, ignored: &[&str]| {
            let other = with(text);
            let (there, back) =
                (Recipe::default().difference(&other, ignored), other.difference(&Recipe::default(), ignored));
            assert_eq!(there.as_ref().map(|d| &d.key), back.as_ref().map(|d| &d.key));
            there.map(|d| (d.key, d.first, d.second))
        };
        let is = |key: &str, first: &str, second: &str| Some((key.to_owned(), first.to_owned(), second.to_owned()));
        assert_eq!(found("seed=42", &[]), None);
        assert_eq!(found("seed=43", &[]), is("seed", "42", "43"));
        assert_eq!(found("tapo.adamw.beta1=0.8", &["sft"]), is("tapo.adamw.beta1", "0.9", "0.8"));
        assert_eq!(found("tapo.adamw.beta1=0.8", &["tapo"]), None);
        assert_eq!(found("model.path=x", &["output"]), is("model.path", "nothing", "\"x\""));
        assert_eq!(found("data.prefixes.\"a.b\"=x", &[]), is("data.prefixes.a.b", "nothing", "\"x\""));
        assert_eq!(found("output=x", &["output", "run"]), None);
    }
}
