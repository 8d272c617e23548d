//! How a training run ended.

use std::path::PathBuf;

use crate::folder::{Best, RunFolder};

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
    /// Rows that it trained on.
    pub rows: usize,
    /// The best checkpoint that was kept, and its folder.
    pub best: Option<(Best, PathBuf)>,
}

impl Outcome {
    /// The outcome of a run in `folder` that was finished before.
    pub(super) fn before(folder: &RunFolder, rows: usize) -> Self {
        Self::Finished(Finished { checkpoint: folder.file("checkpoint"), steps: None, rows, best: None })
    }

    /// The same without the best checkpoint.
    pub(super) fn without_best(self) -> Self {
        match self {
            Self::Finished(finished) => Self::Finished(Finished { best: None, ..finished }),
            stopped => stopped,
        }
    }

    /// The trained model's folder, if the run is finished.
    pub fn checkpoint(&self) -> Option<&PathBuf> {
        match self {
            Self::Finished(finished) => Some(&finished.checkpoint),
            Self::Stopped { .. } => None,
        }
    }
}
