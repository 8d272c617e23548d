//! The position of a checkpoint in its run.

use serde::{Deserialize, Serialize};

/// How many steps and updates a run had made when a checkpoint was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// Number of updates (SFT) or rollout steps (TAPO) made.
    pub step: usize,
    /// Number of updates made in a rollout step that has not ended (TAPO).
    pub updates: usize,
}

impl Mark {
    /// Returns the name of the checkpoint's folder, such as `step-000012` or `step-000012-update-2`.
    ///
    /// ```
    /// use fieldmark_train::trainer::Mark;
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

    /// Parses the name of a checkpoint's folder. Returns `None` if [`Self::name`] does not make such a name.
    pub fn parse(name: &str) -> Option<Self> {
        let numbers = name.strip_prefix("step-")?;
        let (step, updates) = numbers.split_once("-update-").unwrap_or((numbers, "0"));
        let mark = Self { step: step.parse().ok()?, updates: updates.parse().ok()? };
        (mark.name() == name).then_some(mark)
    }
}
