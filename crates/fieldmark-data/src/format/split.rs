//! Seen and unseen: whether a model trains on a class. File names and tables of results use these words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whether a model trains on a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The training data has photographs of the class.
    Seen,
    /// The class occurs in evaluation only.
    Unseen,
}

impl Split {
    /// Both splits, in the order of the paper's tables.
    pub const ALL: [Self; 2] = [Self::Seen, Self::Unseen];
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Seen => "seen",
            Self::Unseen => "unseen",
        })
    }
}

impl FromStr for Split {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "seen" => Ok(Self::Seen),
            "unseen" => Ok(Self::Unseen),
            other => Err(format!("{other:?} is not a split; use \"seen\" or \"unseen\"")),
        }
    }
}
