//! Where the values of a recipe come from.

use std::{fmt, path::PathBuf};

/// Where a value of a recipe comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Not given: the default.
    Default,
    /// In this file.
    File(PathBuf),
    /// On the command line, as `key=value`.
    Set(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => path.display().fmt(f),
            Self::Set(text) => write!(f, "--set {text}"),
        }
    }
}
