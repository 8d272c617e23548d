//! What SFT is between two updates, besides the weights and the optimiser's moments.

use serde::{Deserialize, Serialize};

use crate::trainer::UpdaterState;

/// A run of SFT between two updates, beside weights and moments. The place in the data is that of the update; random
/// streams have no state, since the epoch names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftState {
    /// Rows of the source.
    pub rows: usize,
    /// Updates of the whole run.
    pub total: usize,
    /// Where the updates stand.
    pub updates: UpdaterState,
}
