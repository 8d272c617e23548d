//! Schedule of the TAPO terms: gamma, the coefficient of the inter-class term, stays constant or falls linearly to 0
//! over the first half of the steps. The entropy weights are scaled by the same factor. Reference: the `kl_prcp`
//! controllers, whose counter is not checkpointed; here the factor depends on the step alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the weights of the inter-class term and of the entropy terms change over a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TermSchedule {
    /// Constant.
    #[default]
    Fixed,
    /// Full weight in the first step, then linearly to 0 over the first half of the steps.
    Anneal,
}

impl TermSchedule {
    /// Factor of gamma and both entropy weights at rollout step `step` (counted from 0) of `total`.
    pub fn factor(self, step: usize, total: usize) -> f64 {
        match self {
            Self::Fixed => 1.0,
            Self::Anneal => (1.0 - step as f64 / (total / 2).max(1) as f64).max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annealing_ends_at_half_time() {
        let at = |step| TermSchedule::Anneal.factor(step, 41);
        assert_eq!([at(0), at(5), at(10), at(20), at(21), at(40)], [1.0, 0.75, 0.5, 0.0, 0.0, 0.0]);
        assert_eq!(TermSchedule::Anneal.factor(0, 1), 1.0);
        assert_eq!(TermSchedule::Fixed.factor(39, 40), 1.0);
    }
}
