//! Schedule of the TAPO terms: the coefficient gamma of the inter-class term stays, or falls linearly to 0 over the
//! first half of the steps; the entropy weights are scaled with it. Reference: `kl_prcp` controllers, whose counter
//! is not checkpointed: here the factor is a function of the step alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the inter-class and entropy terms change over a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TermSchedule {
    /// Constant.
    #[default]
    Fixed,
    /// Linearly to 0 over the first half of the steps; the first step has the full weight.
    Anneal,
}

impl TermSchedule {
    /// Factor of gamma and of both entropy weights at rollout step `step` (from 0) of `total`.
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
