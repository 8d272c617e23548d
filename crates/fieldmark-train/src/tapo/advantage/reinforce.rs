//! REINFORCE++ (arXiv 2501.03262): `A_i = (r_i - mean) / sqrt(var + 1e-8)`, with mean and unbiased variance over all
//! tokens of all responses of a step. Deviation from the paper: no divergence from a reference model in the reward; use
//! `kl_ref` to put one into the loss.

use super::rewards::{all_equal, check};
use crate::TrainError;

/// Added to the variance before the square root, as in `masked_whiten`.
const EPSILON: f64 = 1e-8;

/// Advantages of all responses of a step, in the order of `rewards`. A response of `tokens[i]` tokens counts that many
/// times.
///
/// Reference: `compute_reinforce_plus_plus_outcome_advantage`. The reward comes with the last token and the return is
/// not discounted (gamma 1), so every token's return is the reward of its response; returns are whitened over the
/// batch.
///
/// # Errors
/// Returns an error if a reward is NaN or infinite.
pub(in crate::tapo) fn whitened_advantages(rewards: &[f64], tokens: &[usize]) -> Result<Vec<f64>, TrainError> {
    check(rewards)?;
    let count: usize = tokens.iter().sum();
    if all_equal(rewards) || count < 2 {
        return Ok(vec![0.0; rewards.len()]);
    }
    let sum =
        |value: &dyn Fn(f64) -> f64| -> f64 { rewards.iter().zip(tokens).map(|(&r, &t)| value(r) * t as f64).sum() };
    let mean = sum(&|r| r) / count as f64;
    let variance = sum(&|r| (r - mean).powi(2)) / (count - 1) as f64;
    let scale = (variance + EPSILON).sqrt();
    Ok(rewards.iter().map(|r| (r - mean) / scale).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::advantage::rewards::tests::close;

    #[test]
    fn whitening_counts_tokens() {
        // Rewards 1, 0, 0.5 on 1, 2 and 1 tokens: 1, 0, 0, 0.5. Mean 1.5/4 = 0.375; squares 0.625^2 + 2 * 0.375^2 +
        // 0.125^2 = 0.390625 + 0.28125 + 0.015625 = 0.6875; variance 0.6875/3 = 0.229166...
        let scale = (0.6875f64 / 3.0 + 1e-8).sqrt();
        let found = whitened_advantages(&[1.0, 0.0, 0.5], &[1, 2, 1]).unwrap();
        close(&found, &[0.625 / scale, -0.375 / scale, 0.125 / scale]);
        close(&found, &[1.305_582_391_182, -0.783_349_434_709, 0.261_116_478_236]);
        assert_eq!(whitened_advantages(&[0.3; 4], &[5, 1, 2, 9]).unwrap(), [0.0; 4]);
        assert_eq!(whitened_advantages(&[0.3], &[1]).unwrap(), [0.0]);
    }
}
