//! How a training run ended.

use std::path::PathBuf;

use crate::folder::Best;

/// How a training run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All steps are made, now or in an earlier process.
    Finished(Finished),
    /// The run was stopped and can be continued.
    Stopped {
        /// Steps made.
        done: usize,
        /// Steps of the whole run.
        total: usize,
        /// The checkpoint that it continues from.
        saved: PathBuf,
    },
}

/// What a finished run leaves behind.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// The trained model: a checkpoint folder that transformers loads.
    pub checkpoint: PathBuf,
    /// Steps of the run; `None` if the run was finished before.
    pub steps: Option<usize>,
    /// Steps that this process made: fewer than [`Self::steps`] if the run was resumed.
    pub new_steps: usize,
    /// Rows that it trained on.
    pub rows: usize,
    /// The best checkpoint that was kept, and its folder.
    pub best: Option<(Best, PathBuf)>,
}

impl Finished {
    /// A run that was finished before.
    pub(super) fn before(checkpoint: PathBuf, rows: usize) -> Self {
        Self { checkpoint, steps: None, new_steps: 0, rows, best: None }
    }
}

impl Outcome {
    /// The trained model's folder, if the run is finished.
    pub fn checkpoint(&self) -> Option<&PathBuf> {
        match self {
            Self::Finished(finished) => Some(&finished.checkpoint),
            Self::Stopped { .. } => None,
        }
    }
}
