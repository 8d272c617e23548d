//! A recipe in full: TOML in the order of the types, with the origin of each value as a comment on its line.

use serde_json::{Map, Value as Json};
use toml::{Table, Value};

use super::{keys::Place, layers::LayeredRecipe, origin::Origin, table::table_of, text::one_line};

/// Longer lines do not move the column of the comments.
const WIDEST: usize = 48;

impl LayeredRecipe {
    /// The recipe in full as TOML. It reads back equal. A key without a value appears in a comment.
    ///
    /// ```
    /// use fieldmark::recipe::LayeredRecipe;
    /// let layered = LayeredRecipe::read(&[], &["sft.epochs=3".into()])?;
    /// let epochs = layered.to_toml().lines().find(|line| line.starts_with("epochs")).map(str::to_owned);
    /// assert_eq!(epochs.unwrap().split_whitespace().collect::<Vec<_>>().join(" "), "epochs = 3 # --set");
    /// # Ok::<(), fieldmark::recipe::RecipeError>(())
    /// ```
    pub fn to_toml(&self) -> String {
        let mut lines = Vec::new();
        if let Some(Place::Section(known)) = Place::of(&[]) {
            self.section(known, &table_of(&self.recipe), &mut Vec::new(), &mut lines);
        }
        let widths = lines.iter().filter(|(_, origin)| origin.is_some()).map(|(text, _)| text.chars().count());
        let column = widths.filter(|width| *width <= WIDEST).max().unwrap_or_default();
        let lines = lines.into_iter().map(|(text, origin)| match origin {
            Some(origin) => format!("{text:column$}  # {origin}\n"),
            None => format!("{text}\n"),
        });
        lines.collect()
    }

    /// The values of a section, then the sections inside it.
    fn section(
        &self,
        known: &'static Map<String, Json>,
        table: &Table,
        path: &mut Vec<String>,
        lines: &mut Vec<(String, Option<String>)>,
    ) {
        let (sections, values): (Vec<_>, Vec<_>) = known
            .iter()
            .map(|(name, node)| (name, Place::at(node)))
            .partition(|(_, place)| !matches!(place, Place::Leaf));
        if !values.is_empty() {
            header(path, lines);
        }
        for (name, _) in values {
            match table.get(name) {
                Some(value) => self.value(name, value, path, lines),
                None => lines.push((format!("# {name} is not set"), None)),
            }
        }
        for (name, place) in sections {
            path.push(name.clone());
            match (place, table.get(name)) {
                (Place::Section(known), Some(Value::Table(inner))) => self.section(known, inner, path, lines),
                (Place::Map, Some(Value::Table(inner))) if !inner.is_empty() => {
                    header(path, lines);
                    inner.iter().for_each(|(name, value)| self.value(name, value, path, lines));
                }
                _ => lines.extend([(String::new(), None), (format!("# [{}] is not set", path.join(".")), None)]),
            }
            path.pop();
        }
    }

    fn value(&self, name: &str, value: &Value, path: &mut Vec<String>, lines: &mut Vec<(String, Option<String>)>) {
        path.push(name.into());
        let origin = match self.origin(path) {
            Origin::Set(_) => "--set".into(),
            // A comment must stay on one line.
            other => one_line(&other.to_string()),
        };
        path.pop();
        let line = Table::from_iter([(name.to_owned(), value.clone())]).to_string();
        let line = match value {
            // A learning rate is read more easily as 5e-6.
            Value::Float(small) if *small != 0.0 && small.abs() < 1e-3 => {
                line.split_once(" = ").map_or(line.clone(), |(key, _)| format!("{key} = {small:e}"))
            }
            _ => line.trim_end().into(),
        };
        lines.push((line, Some(origin)));
    }
}

fn header(path: &[String], lines: &mut Vec<(String, Option<String>)>) {
    if !path.is_empty() {
        lines.extend([(String::new(), None), (format!("[{}]", path.join(".")), None)]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_shown_reads_back_equal_with_an_origin_on_every_value() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a b.toml");
        std::fs::write(&file, "output = \"quoted \\\"#\\\" \\n two\"\n[data.prefixes]\n\"x.y\" = \"z # w\"\n").unwrap();
        let set = ["eval.files=[\"a\", \"b\"]", "sft.adamw.beta1=0.8", "model.path=m"].map(str::to_owned);
        let layered = LayeredRecipe::read(std::slice::from_ref(&file), &set).unwrap();
        let shown = layered.to_toml();
        let back = folder.path().join("back.toml");
        std::fs::write(&back, &shown).unwrap();
        assert_eq!(LayeredRecipe::read(&[back], &[]).unwrap().recipe, layered.recipe);
        let origin = |start: &str| {
            let line = shown.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start}: {shown}"));
            line.rsplit_once("  # ").unwrap().1.to_owned()
        };
        assert_eq!(origin("\"x.y\" = \"z # w\" "), file.display().to_string());
        for start in ["path = \"m\" ", "files = [\"a\", \"b\"] ", "beta1 = 0.8"] {
            assert_eq!(origin(start), "--set");
        }
        for start in ["seed = 42 ", "beta1 = 0.9 ", "eps = 1e-8 "] {
            assert_eq!(origin(start), "default");
        }
        assert!(shown.contains("\n# limit is not set\n"), "{shown}");
        // The comments stand in one column.
        let columns = shown.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.find("  # default"));
        let columns: BTreeSet<usize> = columns.collect();
        assert_eq!(columns.len(), 1, "{shown}");
    }
}
