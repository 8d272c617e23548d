//! The choice of the policy loss: hard clips (the paper), a soft gate, or a cap on the weight.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What keeps the policy near the one that sampled the responses. The three have the same gradient at ratio 1, so they
/// differ only if a step makes several updates, or trains on groups that waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyObjective {
    /// The gradient of a token stops where its ratio leaves the clips (paper, as in DAPO).
    #[default]
    Clipped,
    /// A soft gate takes away the more of a token's gradient, the further its ratio is from 1 (SAPO, arXiv 2511.20347).
    Sapo,
    /// Every token keeps its gradient, weighed by its ratio, up to `cispo_max` (CISPO of MiniMax-M1, arXiv 2506.13585).
    Cispo,
}
