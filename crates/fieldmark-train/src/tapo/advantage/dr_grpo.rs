//! Dr. GRPO (arXiv 2503.20783): `A_i = r_i - mean(r)`, not divided by the standard deviation. A group that is nearly
//! all right or all wrong then weighs no more than others.

use super::rewards::{all_equal, check};
use crate::TrainError;

/// Advantages of one group, in the order of `rewards`.
///
/// # Errors
/// Returns an error if a reward is NaN or infinite.
pub(super) fn centred_advantages(rewards: &[f64]) -> Result<Vec<f64>, TrainError> {
    check(rewards)?;
    if all_equal(rewards) {
        return Ok(vec![0.0; rewards.len()]);
    }
    let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
    Ok(rewards.iter().map(|r| r - mean).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::advantage::rewards::tests::close;
    use crate::tapo::advantage::rloo::rloo_advantages;

    #[test]
    fn the_mean_without_the_deviation() {
        // Mean 1.6/4 = 0.4.
        close(&centred_advantages(&[1.0, 0.5, 0.1, 0.0]).unwrap(), &[0.6, 0.1, -0.3, -0.4]);
        // RLOO is the same times n/(n - 1).
        let rloo = rloo_advantages(&[1.0, 0.5, 0.1, 0.0]).unwrap();
        close(&rloo, &[0.6, 0.1, -0.3, -0.4].map(|a| a * 4.0 / 3.0));
        assert_eq!(centred_advantages(&[0.1 + 0.2; 7]).unwrap(), [0.0; 7]);
    }
}
