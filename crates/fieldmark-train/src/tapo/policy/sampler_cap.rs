//! Truncated importance sampling: each token's policy loss is multiplied by the constant
//! `min(pi_old / pi_sampler, cap)`. It corrects for differences between sampler and trainer under the same weights
//! (`rollout/gap.rs` measures them). Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
//! training". Reference: `vllm_importance_sampling_correction` in TRL, with its cap of 2.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::policy_loss::MAX_LOG_RATIO;

/// Weights of the tokens. Both are constants, `[batch, response]`.
pub(crate) struct SamplerWeights {
    /// `min(pi_old / pi_sampler, cap)`.
    pub weight_bt: Tensor<2>,
    /// 1 if the cap limited the weight, else 0.
    pub capped_bt: Tensor<2>,
}

/// The sampler weights of an update. Tokens of rollouts scored on another image than the one they were sampled from
/// have weight 1 and are included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SamplerCorrection {
    /// Mean weight of the tokens.
    pub sampler_weight: f64,
    /// Share of tokens at the cap.
    pub sampler_capped: f64,
}

impl std::ops::AddAssign for SamplerCorrection {
    fn add_assign(&mut self, other: Self) {
        self.sampler_weight += other.sampler_weight;
        self.sampler_capped += other.sampler_capped;
    }
}

/// Computes the weights. Both log-probabilities are of the sampled tokens, `[batch, response]`: from the trainer,
/// before the first update of the step, and from the sampler. The log-ratio is clamped to ±20.
pub(crate) fn sampler_weights(old_logp_bt: Tensor<2>, sampler_logp_bt: Tensor<2>, cap: f64) -> SamplerWeights {
    let log_ratio_bt = (old_logp_bt - sampler_logp_bt).detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
    let ratio_bt = log_ratio_bt.exp();
    // An infinite cap means no cap. Not every device compares with infinity, and no ratio reaches twice the largest
    // one.
    let cap = cap.min(2.0 * MAX_LOG_RATIO.exp());
    SamplerWeights { weight_bt: ratio_bt.clone().clamp_max(cap), capped_bt: ratio_bt.greater_elem(cap).float() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    // Ratios 1, 1.5, 3 and 0.5 of trainer and sampler.
    const RATIOS: [f32; 4] = [1.0, 1.5, 3.0, 0.5];

    #[test]
    fn weights_are_ratios_up_to_the_cap() {
        let device = Device::default();
        let of = |cap: f64, sampler: [f32; 5]| {
            let old = Tensor::from_floats([[-1.0f32, -2.0, -0.5, -3.0, 0.0]], &device);
            let SamplerWeights { weight_bt, capped_bt } =
                sampler_weights(old, Tensor::from_floats([sampler], &device), cap);
            [weight_bt, capped_bt].map(|values| values.into_data().iter::<f32>().collect::<Vec<_>>())
        };
        let [one, half, three, low] = RATIOS.map(f32::ln);
        let sampler = [-1.0 - one, -2.0 - half, -0.5 - three, -3.0 - low, -50.0];
        let check = |cap, weights: [f32; 5], capped: [f32; 5]| {
            let [weight, mark] = of(cap, sampler);
            assert_eq!(mark, capped, "cap {cap}");
            for (found, expected) in weight.iter().zip(weights) {
                assert!((found - expected).abs() < 1e-5 * expected.max(1.0), "cap {cap}: {weight:?}");
            }
        };
        let most = 20f32.exp();
        check(2.0, [1.0, 1.5, 2.0, 0.5, 2.0], [0.0, 0.0, 1.0, 0.0, 1.0]);
        check(1.0, [1.0, 1.0, 1.0, 0.5, 1.0], [0.0, 1.0, 1.0, 0.0, 1.0]);
        check(f64::INFINITY, [1.0, 1.5, 3.0, 0.5, most], [0.0; 5]);
    }
}
