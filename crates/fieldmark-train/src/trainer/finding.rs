//! What a run should say aloud: a number that shows that training does not do what was meant. Each finding is one line
//! that says what was seen and what to do.

use std::fmt;

use crate::tapo::Parted;

/// Something that training noticed and the user should know. Its text is one line.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Finding {
    /// Answers contain the right name more often, but are the right name no more often.
    Parted(Parted),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parted(parted) => parted.fmt(f),
        }
    }
}
