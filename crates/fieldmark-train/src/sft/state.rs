//! The state of an SFT run between two updates, without the weights and the optimiser's moments.

use serde::{Deserialize, Serialize};

use crate::trainer::UpdaterState;

/// The state of an SFT run between two updates, without weights and moments. The number of updates gives the position
/// in the data. Random streams have no state: the epoch names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftState {
    /// Number of rows in the source.
    pub rows: usize,
    /// Number of updates of the whole run.
    pub total: usize,
    /// Updates made and skipped so far.
    pub updates: UpdaterState,
}
