//! Truncated importance sampling: each token's policy loss is multiplied by `min(pi_old / pi_sampler, cap)`, a constant that
//! makes up for what sampler and trainer disagree on under the same weights ([`crate::SamplerGap`] measures it).
//! Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"; reference:
//! `vllm_importance_sampling_correction` in TRL, with its cap of 2.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::policy_loss::MAX_LOG_RATIO;

/// Weights of tokens, both `[batch, response]` and constants.
pub struct SamplerWeights {
    /// `min(pi_old / pi_sampler, cap)`.
    pub weight_bt: Tensor<2>,
    /// 1 where the cap cut it, else 0.
    pub capped_bt: Tensor<2>,
}

/// What the weights of an update were. Tokens of rollouts scored on another image than their own have weight 1 and count.
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

/// Weights that correct for the sampler. Both log-probabilities are of the sampled tokens, `[batch, response]`: the trainer's
/// before the step's first update, and those that the sampler recorded. The log-ratio is clamped to ±20.
pub fn sampler_weights(old_logp_bt: Tensor<2>, sampler_logp_bt: Tensor<2>, cap: f64) -> SamplerWeights {
    let log_ratio_bt = (old_logp_bt - sampler_logp_bt).detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO);
    let ratio_bt = log_ratio_bt.exp();
    // No ratio reaches twice the largest, and infinity, which means no cap, is no number to compare with on every device.
    let cap = cap.min(2.0 * MAX_LOG_RATIO.exp());
    SamplerWeights { weight_bt: ratio_bt.clone().clamp_max(cap), capped_bt: ratio_bt.greater_elem(cap).float() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchSize, LossNorm, TapoInputs, TapoLoss, TapoLossConfig, tapo_loss};
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

    /// Two responses, of two tokens and of one: the weight meets the policy term and neither its neighbours nor its ratio.
    fn loss(sampler_cap: Option<f64>) -> (TapoLoss, Vec<f32>) {
        let device = Device::default().autodiff();
        let tensor = |values: [[f32; 2]; 2]| Tensor::<2>::from_floats(values, &device);
        let logp = tensor([[-1.0, -2.0], [-0.5, -7.0]]).require_grad();
        let [_, half, three, low] = RATIOS.map(f32::ln);
        let inputs = TapoInputs {
            logp_bt: logp.clone(),
            old_logp_bt: logp.clone().detach(),
            sampler_logp_bt: Some(tensor([[-1.0 - half, -2.0 - three], [-0.5 - low, 9.0]])),
            neg_logp_bt: Some(tensor([[-1.0, -2.0], [-0.5, -7.0]])),
            ref_logp_bt: None,
            advantages_bt: tensor([[2.0, 2.0], [-4.0, -4.0]]),
            mask_bt: tensor([[1.0, 1.0], [1.0, 0.0]]),
        };
        let size = BatchSize { tokens: 3, sequences: 2 };
        let config = TapoLossConfig { sampler_cap, ..TapoLossConfig::default() };
        let found = tapo_loss(inputs, &config, &LossNorm::Batch.normaliser(size, size, 1));
        let grads = found.total.clone().backward();
        let grad = logp.grad(&grads).unwrap().into_data().iter::<f32>().collect();
        (found, grad)
    }

    #[test]
    fn a_capped_loss_by_hand() {
        let (off, off_grad) = loss(None);
        assert!(off.parts.sampler.is_none());
        let (on, on_grad) = loss(Some(2.0));
        // Losses -2, -2 and 4 at ratio 1; weights 1.5, 2 (capped from 3) and 0.5.
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        close(off.parts.pg_loss, 0.0);
        close(on.parts.pg_loss, (-3.0 - 4.0 + 2.0) / 3.0);
        let sampler = on.parts.sampler.unwrap();
        close(sampler.sampler_weight, (1.5 + 2.0 + 0.5) / 3.0);
        close(sampler.sampler_capped, 1.0 / 3.0);
        close(on.parts.ratio, 1.0);
        // Only the policy's share of the gradient differs, by (weight - 1) of it.
        for (at, expected) in [(0, -2.0 * 0.5 / 3.0), (1, -2.0 / 3.0), (2, 4.0 * -0.5 / 3.0), (3, 0.0)] {
            close(f64::from(on_grad[at] - off_grad[at]), expected);
        }
        assert!(off.parts.entropy == on.parts.entropy && off.parts.kl_neg == on.parts.kl_neg);
    }
}
