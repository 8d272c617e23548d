//! The state of an SFT run between two updates, without the weights and the optimiser's moments.

use serde::{Deserialize, Serialize};

use super::SftMetrics;
use crate::trainer::{UpdateTiming, UpdaterState};

/// The state of an SFT run between two updates, without weights and moments. The number of updates gives the position
/// in the data. Random streams have no state: the epoch names them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftState {
    /// Number of rows in the source.
    pub rows: usize,
    /// Number of updates of the whole run.
    pub total: usize,
    /// Updates made and skipped so far.
    pub updates: UpdaterState,
    /// The last update, if the run was stopped before its validation was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unscored: Option<Unscored>,
}

/// An update that is made but not reported, because the validation set is due after it and not scored yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unscored {
    /// Its measurements, without the validation.
    pub metrics: SftMetrics,
    /// Its time.
    pub timing: UpdateTiming,
}
