//! Errors of reading a recipe. Each names the file or override, and the key.

use std::path::PathBuf;

/// What is wrong with a recipe or an override.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("{}: {source}; give a recipe, such as recipes/fine-r1-3b.toml", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not valid TOML.
    #[error("{}:{line}: not valid TOML: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's error.
        reason: String,
    },
    /// No recipe has this key.
    #[error("{origin}: unknown key `{key}`{suggestion}")]
    UnknownKey {
        /// The file or the override.
        origin: String,
        /// The key.
        key: String,
        /// "; did you mean ...?", or the keys of the section.
        suggestion: String,
    },
    /// The key does not accept this value.
    #[error("{origin}: `{key}`: {reason}")]
    Value {
        /// The file or the override.
        origin: String,
        /// The key.
        key: String,
        /// What was found and what was expected.
        reason: String,
    },
    /// An override is not of the form `key=value`.
    #[error("--set {text}: write it as key=value, such as --set sft.epochs=3")]
    Override {
        /// The override.
        text: String,
    },
}
