//! How a training run ended.

use std::path::PathBuf;

use crate::folder::Best;

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
    /// Number of training rows.
    pub rows: usize,
    /// The best saved checkpoint, and its folder.
    pub best: Option<(Best, PathBuf)>,
}

impl Outcome {
    /// Returns the folder of the trained model if the run is finished.
    pub fn checkpoint(&self) -> Option<&PathBuf> {
        match self {
            Self::Finished(finished) => Some(&finished.checkpoint),
            Self::Stopped { .. } => None,
        }
    }
}
