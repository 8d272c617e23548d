//! ReMax (arXiv 2310.10505): `A_i = r_i - b_i`, where `b_i` is the reward of the greedy response to the same prompt and
//! image.

use super::rewards::check;
use crate::TrainError;

/// Advantages of one group, in the order of `rewards`. `greedy` holds the baseline `b_i` of each and has the same
/// length.
///
/// Reference: `compute_remax_outcome_advantage`.
///
/// # Errors
/// Returns an error if a reward is NaN or infinite.
pub(super) fn remax_advantages(rewards: &[f64], greedy: &[f64]) -> Result<Vec<f64>, TrainError> {
    check(rewards)?;
    check(greedy)?;
    Ok(rewards.iter().zip(greedy).map(|(r, b)| r - b).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::advantage::rewards::tests::close;

    #[test]
    fn the_greedy_response_is_the_baseline() {
        // Two rollouts of the anchor, whose greedy response got 0.1, and two of the positive, whose got 1.
        let found = remax_advantages(&[1.0, 0.1, 1.0, 0.1], &[0.1, 0.1, 1.0, 1.0]).unwrap();
        close(&found, &[0.9, 0.0, 0.0, -0.9]);
    }
}
