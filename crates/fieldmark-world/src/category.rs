//! The super-categories and the parts of the body that carry field marks.

use serde::{Deserialize, Serialize};

/// Number of parts in each category.
pub const PARTS: usize = 5;

/// A super-category of species.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Category {
    Bird,
    Moth,
    Fish,
}

impl Category {
    /// All categories.
    pub const ALL: [Self; 3] = [Self::Bird, Self::Moth, Self::Fish];

    /// The word in texts and file names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bird => "bird",
            Self::Moth => "moth",
            Self::Fish => "fish",
        }
    }

    /// The parts, in the order in which texts name them.
    pub fn parts(self) -> [&'static str; PARTS] {
        match self {
            Self::Bird => ["head", "back", "breast", "wing", "tail"],
            Self::Moth => ["forewing", "tip", "hindwing", "spot", "body"],
            Self::Fish => ["head", "back", "belly", "fin", "tail"],
        }
    }

    /// The question that the data files ask.
    pub fn question(self) -> String {
        format!("Which {} is this?", self.word())
    }
}
