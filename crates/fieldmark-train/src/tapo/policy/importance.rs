//! Importance ratios: one per token, `pi_t / pi_old_t` (the paper, like PPO and GRPO), or one per response,
//! `s_i = exp(mean over t of (log pi_t - log pi_old_t))` (GSPO, arXiv 2507.18071). The latter takes the form that its
//! paper calls GSPO-token: `s_it = sg[s_i] pi_t / sg[pi_t]`, where sg stops the gradient. Its value is s_i on every
//! token, so the same policy loss clips both. References: `importance_sampling_level` in TRL,
//! `compute_policy_loss_gspo` in verl.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether each token or each response has an importance ratio.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Importance {
    /// One ratio per token.
    #[default]
    Token,
    /// One ratio per response: the geometric mean of its tokens' ratios, applied to each token (GSPO). It stays so
    /// close to 1 that the usual clips are `clip_low` = 3e-4 and `clip_high` = 4e-4.
    Sequence,
}

impl Importance {
    /// Logarithm of the importance ratio, `[batch, response]`. Its derivative with respect to the token's own `logp_bt`
    /// is 1.
    ///
    /// * `old_logp_bt`: log π_old, a constant.
    /// * `mask_bt`: 1 on response tokens, else 0. Masked entries are ignored but must be finite.
    pub fn log_ratio(self, logp_bt: Tensor<2>, old_logp_bt: Tensor<2>, mask_bt: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Token => logp_bt - old_logp_bt,
            Self::Sequence => {
                let const_logp_bt = logp_bt.clone().detach();
                let tokens_b1 = mask_bt.clone().sum_dim(1).clamp_min(1.0);
                let mean_b1 = ((const_logp_bt.clone() - old_logp_bt) * mask_bt).sum_dim(1) / tokens_b1;
                // The difference is 0; it only carries the gradient.
                logp_bt - const_logp_bt + mean_b1
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::policy::policy_loss::{ClipConfig, policy_loss};
    use burn::tensor::Device;

    /// Ratio, loss, gradient and the marks high, low, dual of each token.
    type Row = [[f32; 2]; 6];

    /// Two responses: one of two tokens whose ratios are `ratios`, and one of a single token with the second of them.
    fn two(importance: Importance, clip: &ClipConfig, ratios: [f32; 2], advantage: f32) -> [Row; 2] {
        let device = Device::default().autodiff();
        let old = [[-1.5f32, -0.25], [-2.0, 0.0]];
        // The masked slot has a value, as a scorer that pads may leave one.
        let [first, second] = ratios.map(f32::ln);
        let logp = [[old[0][0] + first, old[0][1] + second], [old[1][0] + second, -7.0]];
        let logp = Tensor::<2>::from_floats(logp, &device).require_grad();
        let mask = Tensor::from_floats([[1.0, 1.0], [1.0, 0.0]], &device);
        let log_ratio = importance.log_ratio(logp.clone(), Tensor::from_floats(old, &device), mask.clone());
        let found = policy_loss(log_ratio, Tensor::full([2, 2], advantage, &device), clip);
        let grads = (found.loss_bt.clone() * mask.clone()).sum().backward();
        let parts = [
            found.ratio_bt.inner(),
            found.loss_bt.inner(),
            logp.grad(&grads).unwrap(),
            found.clipped_high_bt.inner(),
            found.clipped_low_bt.inner(),
            found.clipped_dual_bt.inner(),
        ];
        let mask = mask.inner();
        let parts = parts.map(|part| (part * mask.clone()).into_data().iter::<f32>().collect::<Vec<_>>());
        [0, 2].map(|at| parts.each_ref().map(|part| [part[at], part[at + 1]]))
    }

    fn close(found: &Row, expected: &Row) {
        for (found, expected) in found.as_flattened().iter().zip(expected.as_flattened()) {
            assert!((found - expected).abs() < 1e-5 * expected.abs().max(1.0), "{found} {expected}");
        }
    }

    #[test]
    fn a_response_of_two_tokens_by_hand() {
        let clip = ClipConfig::default();
        let [on, off] = [[1.0, 1.0], [0.0, 0.0]];
        // Ratios 4 and 0.25: by tokens both clips act on an advantage of either sign, and s = sqrt(4 * 0.25) = 1.
        let (token, sequence) = (Importance::Token, Importance::Sequence);
        let [found, _] = two(token, &clip, [4.0, 0.25], 2.0);
        close(&found, &[[4.0, 0.25], [-2.56, -0.5], [0.0, -0.5], [1.0, 0.0], off, off]);
        let [found, _] = two(token, &clip, [4.0, 0.25], -2.0);
        close(&found, &[[4.0, 0.25], [6.0, 1.6], off, off, [0.0, 1.0], [1.0, 0.0]]);
        let [found, _] = two(sequence, &clip, [4.0, 0.25], 2.0);
        close(&found, &[on, [-2.0, -2.0], [-2.0, -2.0], off, off, off]);
        let [found, _] = two(sequence, &clip, [4.0, 0.25], -2.0);
        close(&found, &[on, [2.0, 2.0], [2.0, 2.0], off, off, off]);

        // s = sqrt(4 * 0.36) = 1.2, inside; sqrt(4 * 1) = 2, above; sqrt(0.25 * 1) = 0.5, below; sqrt(16 * 1) = 4,
        // dual.
        let [found, _] = two(sequence, &clip, [4.0, 0.36], 2.0);
        close(&found, &[[1.2, 1.2], [-2.4, -2.4], [-2.4, -2.4], off, off, off]);
        let [found, _] = two(sequence, &clip, [4.0, 1.0], 2.0);
        close(&found, &[[2.0, 2.0], [-2.56, -2.56], off, on, off, off]);
        let [found, _] = two(sequence, &clip, [0.25, 1.0], -2.0);
        close(&found, &[[0.5, 0.5], [1.6, 1.6], off, off, on, off]);
        let [found, _] = two(sequence, &clip, [16.0, 1.0], -2.0);
        close(&found, &[[4.0, 4.0], [6.0, 6.0], off, off, off, on]);
    }

    #[test]
    fn gspos_own_clips_act_on_the_mean_alone() {
        let clip = ClipConfig { clip_low: 3e-4, clip_high: 4e-4, ..Default::default() };
        let off = [0.0, 0.0];
        // 1.5 * (2/3) = 1: however far its tokens are, the response is not clipped.
        let [found, _] = two(Importance::Sequence, &clip, [1.5, 2.0 / 3.0], 2.0);
        close(&found, &[[1.0, 1.0], [-2.0, -2.0], [-2.0, -2.0], off, off, off]);
        // sqrt(1.002001) = 1.001.
        let [found, _] = two(Importance::Sequence, &clip, [1.002_001, 1.0], 2.0);
        close(&found, &[[1.001, 1.001], [-2.0008, -2.0008], off, [1.0, 1.0], off, off]);
    }

    #[test]
    fn a_response_of_one_token_has_one_ratio() {
        for ratio in [0.5, 0.9, 1.0, 1.2, 1.5, 3.5, 1e12] {
            for advantage in [2.0, -2.0, 0.0] {
                let of = |importance| two(importance, &ClipConfig::default(), [1.0, ratio], advantage)[1];
                close(&of(Importance::Sequence), &of(Importance::Token));
            }
        }
    }

    /// GSPO's own objective differentiates s_i. Its gradient is that of the token form, averaged over the response.
    #[test]
    fn the_token_form_averages_to_the_gradient_of_the_sequence_form() {
        let clip = ClipConfig::default();
        let s = (1.3f32 * 1.1).sqrt();
        let objective = |change: f32| -2.0 * ((1.3f32.ln() + 1.1f32.ln() + change) / 2.0).exp();
        let slope = (objective(1e-2) - objective(-1e-2)) / 2e-2;
        let [found, _] = two(Importance::Sequence, &clip, [1.3, 1.1], 2.0);
        assert!((found[0][0] - s).abs() < 1e-6 && s < 1.28);
        for gradient in found[2] {
            assert!((gradient / 2.0 - slope).abs() < 1e-4, "{gradient} {slope}");
        }
    }

    /// What a token's loss is multiplied by stays with the token: through s_i itself it would spread over the response.
    #[test]
    fn each_token_moves_by_its_own_loss() {
        let device = Device::default().autodiff();
        let row = |values: [f32; 2]| Tensor::<2>::from_floats([values], &device);
        let logp = row([-1.0, -2.0]).require_grad();
        let old = row([-1.0 - 1.3f32.ln(), -2.0 - 1.1f32.ln()]);
        let log_ratio = Importance::Sequence.log_ratio(logp.clone(), old, row([1.0, 1.0]));
        let found = policy_loss(log_ratio, row([2.0, -1.0]), &ClipConfig::default());
        let grads = (found.loss_bt * row([1.0, 0.5])).sum().backward();
        let found: Vec<f32> = logp.grad(&grads).unwrap().into_data().iter::<f32>().collect();
        let s = (1.3f32 * 1.1).sqrt();
        assert!((found[0] + 2.0 * s).abs() < 1e-5 && (found[1] - 0.5 * s).abs() < 1e-5, "{found:?}");
    }
}
