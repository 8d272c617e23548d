//! The place of a checkpoint in its run.

use serde::{Deserialize, Serialize};

/// How far a run had come when a checkpoint was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// Updates (SFT) or rollout steps (TAPO) made.
    pub step: usize,
    /// Updates made in a rollout step that has not ended.
    pub updates: usize,
}

impl Mark {
    /// The name of the checkpoint's folder, such as `step-000012` or `step-000012-update-2`.
    ///
    /// ```
    /// use fieldmark_train::Mark;
    /// let mark = Mark { step: 12, updates: 2 };
    /// assert_eq!(mark.name(), "step-000012-update-2");
    /// assert_eq!(Mark::parse("step-000012-update-2"), Some(mark));
    /// ```
    pub fn name(self) -> String {
        match self.updates {
            0 => format!("step-{:06}", self.step),
            updates => format!("step-{:06}-update-{updates}", self.step),
        }
    }

    /// The mark with this name; `None` if the name is not one that [`Self::name`] makes.
    pub fn parse(name: &str) -> Option<Self> {
        let numbers = name.strip_prefix("step-")?;
        let (step, updates) = numbers.split_once("-update-").unwrap_or((numbers, "0"));
        let mark = Self { step: step.parse().ok()?, updates: updates.parse().ok()? };
        (mark.name() == name).then_some(mark)
    }
}
