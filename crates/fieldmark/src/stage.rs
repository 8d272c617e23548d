//! The two stages of training, by the names that recipes and commands use.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A stage of training.
///
/// ```
/// use fieldmark::Stage;
/// assert_eq!("tapo".parse(), Ok(Stage::Tapo));
/// assert_eq!(Stage::Sft.to_string(), "sft");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Supervised fine-tuning.
    Sft,
    /// Triplet-augmented policy optimisation.
    Tapo,
}

impl Stage {
    /// Both stages, in the order in which they run.
    pub const ALL: [Self; 2] = [Self::Sft, Self::Tapo];

    /// The name of the command and of the log file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Tapo => "tapo",
        }
    }

    /// The stage's section of a recipe, which has the same name.
    pub const fn section(self) -> &'static str {
        self.name()
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        Self::ALL.into_iter().find(|stage| stage.name() == text).ok_or_else(|| UnknownStage(text.into()))
    }
}

/// A name that is not a stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a stage; the stages are sft and tapo")]
pub struct UnknownStage(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_has_one_name_everywhere() {
        for stage in Stage::ALL {
            assert_eq!(stage.to_string().parse(), Ok(stage));
            assert_eq!(serde_json::to_value(stage).unwrap(), stage.name());
            assert_eq!(serde_json::from_value::<Stage>(stage.section().into()).unwrap(), stage);
        }
        for wrong in ["", "SFT", "rl"] {
            assert_eq!(wrong.parse::<Stage>(), Err(UnknownStage(wrong.into())));
        }
    }
}
