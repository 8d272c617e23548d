//! How a training run ended.

use std::path::PathBuf;

use crate::folder::{Best, RunFolder};

/// How a training run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// All steps are made, in this process or in an earlier one.
    Finished(Finished),
    /// The run was stopped and can be resumed.
    Stopped {
        /// Number of steps made.
        done: usize,
        /// Number of steps of the whole run.
        total: usize,
        /// The folder of the checkpoint to resume from.
        saved: PathBuf,
    },
}

/// The results of a finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// The trained model: a checkpoint folder that transformers loads.
    pub checkpoint: PathBuf,
    /// Number of steps of the run, or `None` if the run was already finished.
    pub steps: Option<usize>,
    /// Steps that this process made: fewer than [`Self::steps`] if the run was resumed.
    pub new_steps: usize,
    /// Number of training rows.
    pub rows: usize,
    /// The best saved checkpoint, and its folder.
    pub best: Option<(Best, PathBuf)>,
}

impl Outcome {
    /// The outcome of a run in `folder` that was finished before.
    pub(super) fn before(folder: &RunFolder, rows: usize) -> Self {
        Self::Finished(Finished { checkpoint: folder.file("checkpoint"), steps: None, new_steps: 0, rows, best: None })
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
