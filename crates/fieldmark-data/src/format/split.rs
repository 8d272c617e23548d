//! Seen and unseen: the two halves of a data set, as file names and tables call them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whether a class is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Photographs of the class are in the training data.
    Seen,
    /// The class is met in evaluation only.
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
            other => Err(format!("{other:?} is no split; use \"seen\" or \"unseen\"")),
        }
    }
}
