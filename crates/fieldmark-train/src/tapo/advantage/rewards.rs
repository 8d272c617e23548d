//! What the estimators compute from: the rewards of one group, and the checks that they make on them first.

use crate::TrainError;

/// The rewards of one group, in the order of its responses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroupRewards {
    /// The weighted sum of each response.
    pub overall: Vec<f64>,
    /// For each response, the reward of the greedy response to the same prompt and image. Only ReMax uses it.
    pub greedy: Vec<f64>,
    /// Weight and unweighted values of every reward. Only MRN and GDPO use them.
    pub each: Vec<(f64, Vec<f64>)>,
}

/// Whether all rewards are equal. True for one reward and for none.
pub(super) fn all_equal(rewards: &[f64]) -> bool {
    rewards.windows(2).all(|pair| pair[0] == pair[1])
}

/// Returns an error if a reward is NaN or infinite.
pub(super) fn check(rewards: &[f64]) -> Result<(), TrainError> {
    match rewards.iter().enumerate().find(|(_, r)| !r.is_finite()) {
        Some((index, &value)) => Err(TrainError::NonFiniteReward { index, value }),
        None => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    pub(in super::super) fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-9, "{found:?} for {expected:?}");
        }
    }
}
