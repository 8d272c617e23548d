//! What one recipe file or one override gives: its keys with their values, and where each of them stands.

use std::path::Path;

use toml::{
    Table,
    de::{DeTable, DeValue},
};

use super::{
    error::RecipeError, home::expand, origin::Origin, overrides::parse_override, paths::follow, text::one_line,
};

/// The keys of a file or an override.
#[derive(Debug)]
pub(super) struct Given {
    /// The keys, with paths that can be used from here.
    pub(super) table: Table,
    /// Where they come from.
    pub(super) origin: Origin,
    /// The text of the file.
    text: String,
}

impl Given {
    /// Reads a file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not TOML, or has a path that cannot be used.
    pub(super) fn file(path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path).map_err(|source| RecipeError::Read { path: path.into(), source })?;
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| RecipeError::Syntax {
            path: path.into(),
            line: error.span().map_or(1, |span| line_at(&text, span.start)),
            reason: one_line(error.message()),
        })?;
        follow(&mut table, path);
        Self { table, origin: Origin::File(path.into()), text }.at_home()
    }

    /// Reads `key=value`.
    ///
    /// # Errors
    /// Returns an error if the text is not of this form, or has a path that cannot be used.
    pub(super) fn set(text: &str) -> Result<Self, RecipeError> {
        Self { table: parse_override(text)?, origin: Origin::Set(text.into()), text: String::new() }.at_home()
    }

    fn at_home(mut self) -> Result<Self, RecipeError> {
        match expand(&mut self.table, std::env::home_dir().as_deref()) {
            Ok(()) => Ok(self),
            Err((key, reason)) => {
                let path: Vec<String> = key.split('.').map(str::to_owned).collect();
                Err(RecipeError::Value { origin: self.place(&path), key: key.into(), reason })
            }
        }
    }

    /// Where a key stands: the override, or the file with the line.
    pub(super) fn place(&self, path: &[String]) -> String {
        match line_of(&self.text, path) {
            Some(line) => format!("{}:{line}", self.origin),
            None => self.origin.to_string(),
        }
    }
}

/// The line of a key, from 1.
fn line_of(text: &str, path: &[String]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let (mut table, mut start) = (document.get_ref(), None);
    for name in path {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref() == name) else { break };
        start = Some(key.span().start);
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    start.map(|start| line_at(text, start))
}

fn line_at(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|&byte| byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_line_on_which_it_stands() {
        let text = "seed = 1\n[sft]\nepochs = 1\ntrain.vision = true\n\n[data.sft]\n\n\"file\" = \"x\"\n[sft.adamw]\neps = 1\n";
        for (key, line) in [
            ("seed", 1),
            ("sft.epochs", 3),
            ("sft.train.vision", 4),
            ("data.sft.file", 8),
            ("sft.adamw.eps", 10),
            ("sft.adamw.eps.x", 10),
        ] {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            assert_eq!(line_of(text, &path), Some(line), "{key}");
        }
        assert_eq!(line_of(text, &["tapo".into()]), None);
    }
}
