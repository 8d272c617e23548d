//! Which image of a triplet a response was sampled from.

use serde::{Deserialize, Serialize};

/// The image that a response was sampled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageRole {
    /// The anchor.
    Anchor,
    /// The positive.
    Positive,
}

impl ImageRole {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Anchor => "anchor",
            Self::Positive => "positive",
        }
    }
}
