//! Policy loss per token, with clip-higher and dual clip: `L = max(-A rho, -A clip(rho, 1 - low, 1 + high))`, and for
//! `A < 0` at most `-dual A`. `rho` is the importance ratio, with its logarithm clamped to ±20.
//! Paper 4.3 (DAPO's objective). Reference: `compute_policy_loss`, which also applies the clip to the log-ratio.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::TrainError;

pub(super) const MAX_LOG_RATIO: f64 = 20.0;

/// Bounds of the importance ratio.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClipConfig {
    /// The ratio is clipped from below at `1 - clip_low`. Default: 0.2.
    pub clip_low: f64,
    /// The ratio is clipped from above at `1 + clip_high`. Default: 0.28.
    pub clip_high: f64,
    /// If the advantage A is negative, the loss is at most `clip_dual * |A|`. Default: 3. Infinity (`inf` in a recipe)
    /// means no limit.
    pub clip_dual: f64,
}

impl Default for ClipConfig {
    fn default() -> Self {
        Self { clip_low: 0.2, clip_high: 0.28, clip_dual: 3.0 }
    }
}

impl ClipConfig {
    /// Checks the bounds.
    ///
    /// # Errors
    /// Returns an error if `clip_low` is outside 0..1, `clip_high` is negative, or `clip_dual` is not above 1.
    pub fn validate(&self) -> Result<(), TrainError> {
        let checks = [
            ("clip_low", self.clip_low, (0.0..1.0).contains(&self.clip_low), "at least 0 and below 1"),
            ("clip_high", self.clip_high, self.clip_high >= 0.0, "at least 0"),
            ("clip_dual", self.clip_dual, self.clip_dual > 1.0, "above 1"),
        ];
        for (key, value, ok, expected) in checks {
            if !ok {
                return Err(TrainError::Setting { key, value: value.to_string(), expected });
            }
        }
        Ok(())
    }
}

/// Loss of each token and the tokens that it holds back. All `[batch, response]`.
///
/// A token is held back if a clip stops its gradient, if CISPO's cap limits its weight, or if SAPO's gate leaves less
/// than half of its gradient.
pub struct PolicyLoss {
    /// Loss of each token, differentiable with respect to the log-ratio.
    pub loss_bt: Tensor<2>,
    /// The importance ratio.
    pub ratio_bt: Tensor<2>,
    /// 1 where a token is held back and `A > 0`, ratio too high.
    pub clipped_high_bt: Tensor<2>,
    /// 1 where a token is held back because its ratio is too low. The clip does so only if `A < 0`.
    pub clipped_low_bt: Tensor<2>,
    /// 1 where a token is held back and `A < 0`, ratio too high.
    pub clipped_dual_bt: Tensor<2>,
}

/// Policy loss of each token. `log_ratio_bt` is the logarithm of the importance ratio
/// ([`Importance::log_ratio`](super::Importance::log_ratio)); `advantages_bt` is a constant. Both are
/// `[batch, response]`.
///
/// Masked tokens are computed like all others, so they must have finite values.
pub fn policy_loss(log_ratio_bt: Tensor<2>, advantages_bt: Tensor<2>, clip: &ClipConfig) -> PolicyLoss {
    let (low, high) = (1.0 - clip.clip_low, 1.0 + clip.clip_high);
    let log_ratio_bt = log_ratio_bt.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
    let ratio_bt = log_ratio_bt.clone().exp();
    let bounded_bt = log_ratio_bt.clamp(low.ln(), high.ln()).exp();

    let gain_bt = advantages_bt.clone().neg();
    let clipped_bt = (gain_bt.clone() * ratio_bt.clone()).max_pair(gain_bt.clone() * bounded_bt);
    // No ratio reaches twice the largest one, so this changes nothing. An infinite ceiling times an advantage of 0
    // would be NaN, and devices differ in how they compare with NaN.
    let ceiling_bt = gain_bt * clip.clip_dual.min(2.0 * MAX_LOG_RATIO.exp());
    let negative_bt = advantages_bt.clone().lower_elem(0.0);
    let above_bt = clipped_bt.clone().greater(ceiling_bt.clone()).bool_and(negative_bt.clone());
    let loss_bt = clipped_bt.mask_where(above_bt.clone(), ceiling_bt);

    let ratio_const_bt = ratio_bt.clone().detach();
    let positive_bt = advantages_bt.greater_elem(0.0);
    let too_high_bt = ratio_const_bt.clone().greater_elem(high).bool_and(positive_bt);
    let too_low_bt = ratio_const_bt.lower_elem(low).bool_and(negative_bt);
    PolicyLoss {
        loss_bt,
        ratio_bt,
        clipped_high_bt: too_high_bt.float(),
        clipped_low_bt: too_low_bt.float(),
        clipped_dual_bt: above_bt.float(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Loss, gradient and the three marks for one token of this ratio and advantage, with `pi_old = 1`.
    fn token(ratio: f32, advantage: f32) -> [f32; 5] {
        token_within(&ClipConfig::default(), ratio, advantage)
    }

    fn token_within(clip: &ClipConfig, ratio: f32, advantage: f32) -> [f32; 5] {
        let device = Device::default().autodiff();
        let logp = Tensor::<2>::from_floats([[ratio.ln()]], &device).require_grad();
        let a = Tensor::from_floats([[advantage]], &device);
        let out = policy_loss(logp.clone(), a, clip);
        let grads = out.loss_bt.clone().sum().backward();
        let grad = logp.grad(&grads).unwrap();
        let read = |t: Tensor<2>| t.into_scalar::<f32>();
        [read(out.loss_bt), read(grad), read(out.clipped_high_bt), read(out.clipped_low_bt), read(out.clipped_dual_bt)]
    }

    #[test]
    fn each_region_of_the_ratio_has_its_closed_form() {
        let cases: [(f32, f32, [f32; 5]); 9] = [
            (1.0, 2.0, [-2.0, -2.0, 0.0, 0.0, 0.0]),
            (1.27, 2.0, [-2.54, -2.54, 0.0, 0.0, 0.0]),
            (1.5, 2.0, [-2.56, 0.0, 1.0, 0.0, 0.0]),
            (0.5, 2.0, [-1.0, -1.0, 0.0, 0.0, 0.0]),
            (0.5, -2.0, [1.6, 0.0, 0.0, 1.0, 0.0]),
            (1.5, -2.0, [3.0, 3.0, 0.0, 0.0, 0.0]),
            (2.9, -2.0, [5.8, 5.8, 0.0, 0.0, 0.0]),
            (3.1, -2.0, [6.0, 0.0, 0.0, 0.0, 1.0]),
            (3.1, 0.0, [0.0, 0.0, 0.0, 0.0, 0.0]),
        ];
        for (ratio, advantage, expected) in cases {
            let found = token(ratio, advantage);
            for (f, e) in found.iter().zip(&expected) {
                assert!((f - e).abs() < 1e-5, "ratio {ratio}, A {advantage}: {found:?}");
            }
        }
    }

    #[test]
    fn an_infinite_dual_clip_is_none() {
        let clip = ClipConfig { clip_dual: f64::INFINITY, ..Default::default() };
        assert!(clip.validate().is_ok());
        for (ratio, advantage, expected) in [
            (3.1, -2.0, [6.2, 6.2, 0.0, 0.0, 0.0]),
            (1e30, -2.0, [2.0 * 20.0f32.exp(), 0.0, 0.0, 0.0, 0.0]),
            (1e30, 0.0, [0.0; 5]),
            (1.5, 2.0, [-2.56, 0.0, 1.0, 0.0, 0.0]),
        ] {
            let found = token_within(&clip, ratio, advantage);
            for (f, e) in found.iter().zip(&expected) {
                assert!((f - e).abs() <= 1e-5 * e.abs().max(1.0), "ratio {ratio}, A {advantage}: {found:?}");
            }
        }
    }

    #[test]
    fn bounds_are_checked() {
        assert!(ClipConfig::default().validate().is_ok());
        assert!(ClipConfig { clip_low: 1.0, ..Default::default() }.validate().is_err());
        assert!(ClipConfig { clip_high: f64::NAN, ..Default::default() }.validate().is_err());
        assert!(ClipConfig { clip_dual: 1.0, ..Default::default() }.validate().is_err());
    }
}
