//! RLOO (arXiv 2402.14740): `A_i = r_i - mean of the other rewards in the group`.

use super::rewards::{all_equal, check};
use crate::TrainError;

/// Advantages of one group, in the order of `rewards`. 0 for a group of one.
///
/// Reference: `compute_rloo_outcome_advantage`, which refuses a group of one.
///
/// # Errors
/// Returns an error if a reward is NaN or infinite.
pub(super) fn rloo_advantages(rewards: &[f64]) -> Result<Vec<f64>, TrainError> {
    check(rewards)?;
    if all_equal(rewards) {
        return Ok(vec![0.0; rewards.len()]);
    }
    let sum: f64 = rewards.iter().sum();
    let others = (rewards.len() - 1) as f64;
    Ok(rewards.iter().map(|r| r - (sum - r) / others).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::advantage::rewards::tests::close;

    #[test]
    fn leave_one_out() {
        // Sum 1.6. 1 - (1.6 - 1)/3 = 0.8; 0.5 - 1.1/3 = 0.4/3; 0.1 - 1.5/3 = -0.4; 0 - 1.6/3.
        let found = rloo_advantages(&[1.0, 0.5, 0.1, 0.0]).unwrap();
        close(&found, &[0.8, 0.4 / 3.0, -0.4, -1.6 / 3.0]);
        // Of two, each is the other's baseline.
        close(&rloo_advantages(&[1.0, 0.1]).unwrap(), &[0.9, -0.9]);
        assert_eq!(rloo_advantages(&[1.0]).unwrap(), [0.0]);
        assert_eq!(rloo_advantages(&[0.1 + 0.2; 7]).unwrap(), [0.0; 7]);
        assert!(rloo_advantages(&[]).unwrap().is_empty());
    }
}
