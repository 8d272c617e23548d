//! The TAPO loss: `mean(L) - gamma mean(k3(pi, pi_neg)) + eta1 mean(-log pi) + eta2 mean(-log pi_neg)`, paper 4.3,
//! equations 3 and 4. Deviations from the paper, both as in the released code: k3 uses the inverse ratio
//! (`policy/k3.rs`), and the entropies are -log pi where the paper prints log pi. Deviations from the released code:
//! one mean over the whole batch of an update ([`LossNorm`](crate::gradient::LossNorm)), and gradient through log
//! pi_neg (`negative_grad`).

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{
    loss_config::{LossAverage, TapoLossConfig},
    policy::{PolicyLoss, PolicyObjective, SamplerCorrection, cispo_loss, k3, policy_loss, sampler_weights, sapo_loss},
};
use crate::gradient::Normaliser;

/// Inputs of the loss of one micro-batch. All are `[batch, response]`; masked entries must be finite.
pub struct TapoInputs {
    /// Log-probability of each sampled token under the policy, given the update's image. Carries the gradient.
    pub logp_bt: Tensor<2>,
    /// Log-probability of the same tokens before the first update of the step. A constant.
    pub old_logp_bt: Tensor<2>,
    /// Log-probability of the same tokens as recorded by the sampler. A constant. For responses sampled from another
    /// image, set it to `old_logp_bt`. Without it, `sampler_cap` has no effect.
    pub sampler_logp_bt: Option<Tensor<2>>,
    /// Log-probability of the same tokens given the negative image. Without it, the loss has neither the inter-class
    /// term nor the entropy on the negative image, whatever their weights are.
    pub neg_logp_bt: Option<Tensor<2>>,
    /// Log-probability of the same tokens under the reference model. A constant. Without it, `kl_ref` has no effect.
    pub ref_logp_bt: Option<Tensor<2>>,
    /// Advantage of the response, repeated on each of its tokens.
    pub advantages_bt: Tensor<2>,
    /// 1 up to and including the first end token, else 0.
    pub mask_bt: Tensor<2>,
    /// The tokens whose policy loss counts. Without it, all do.
    pub policy_tokens: Option<PolicyTokens>,
}

/// The tokens whose policy loss counts, if it is not that of all.
pub struct PolicyTokens {
    /// 1 on these tokens, else 0.
    pub mask_bt: Tensor<2>,
    /// The divisors of means over these tokens.
    pub normaliser: Normaliser,
}

/// The parts of the loss. Each value is the share of one micro-batch: the shares of all micro-batches of an update add
/// up to the update's mean. NaN becomes `null` in `metrics.jsonl`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TapoParts {
    /// The whole loss; may be negative.
    pub loss: f64,
    /// Policy term: mean of the policy loss; may be negative. With CISPO it is a multiple of log pi, so that its value
    /// says little.
    pub pg_loss: f64,
    /// Estimate of KL(pi || pi_neg) in nats per token, before gamma; at least 0. NaN if the negative image is not used.
    pub kl_neg: f64,
    /// Mean of -log pi over the sampled tokens, in nats per token; at least 0.
    pub entropy: f64,
    /// Mean of -log pi_neg over the sampled tokens, in nats per token; at least 0. NaN if the negative image is not
    /// used.
    pub neg_entropy: f64,
    /// Estimate of KL(pi || reference model) in nats per token, before its weight; at least 0. 0 without a reference
    /// model.
    pub kl_ref: f64,
    /// Mean importance ratio pi / pi_old over the tokens; above 0, and 1 if the policy has not changed. With ratios per
    /// sequence, each token has the ratio of its sequence.
    pub ratio: f64,
    /// Share of tokens with A > 0 and a ratio so high that they are held back ([`PolicyLoss`]), from 0 to 1.
    pub clipped_high: f64,
    /// Share of tokens with a ratio so low that they are held back, from 0 to 1.
    pub clipped_low: f64,
    /// Share of tokens with A < 0 and a ratio so high that they are held back, from 0 to 1.
    pub clipped_dual: f64,
    /// Correction of the policy term for the sampler. Absent unless `sampler_cap` is set.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<SamplerCorrection>,
}

impl std::ops::AddAssign for TapoParts {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.pg_loss += other.pg_loss;
        self.kl_neg += other.kl_neg;
        self.entropy += other.entropy;
        self.neg_entropy += other.neg_entropy;
        self.kl_ref += other.kl_ref;
        self.ratio += other.ratio;
        self.clipped_high += other.clipped_high;
        self.clipped_low += other.clipped_low;
        self.clipped_dual += other.clipped_dual;
        if let Some(other) = other.sampler {
            *self.sampler.get_or_insert_default() += other;
        }
    }
}

/// The loss as a tensor to differentiate, and the values of its parts.
pub struct TapoLoss {
    /// The whole loss, shape `[1]`, on the tape of `logp_bt` (and of `neg_logp_bt` if `negative_grad` is set).
    pub total: Tensor<1>,
    /// Values of the parts, without gradient.
    pub parts: TapoParts,
}

/// Computes the TAPO loss of one micro-batch.
///
/// `normaliser` holds the divisors of the means. With [`LossNorm::Batch`](crate::gradient::LossNorm::Batch) the
/// gradients of all micro-batches add up to those of the whole batch.
pub fn tapo_loss(inputs: TapoInputs, config: &TapoLossConfig, normaliser: &Normaliser) -> TapoLoss {
    let TapoInputs { logp_bt, old_logp_bt, sampler_logp_bt, neg_logp_bt, ref_logp_bt, advantages_bt, .. } = inputs;
    let (mask_bt, policy_tokens) = (inputs.mask_bt, inputs.policy_tokens);
    let old_logp_bt = old_logp_bt.detach();
    let token_mean = |values_bt: Tensor<2>| normaliser.token_mean(values_bt, mask_bt.clone());
    let mean_over = |values_bt: Tensor<2>, mask_bt: Tensor<2>, normaliser: &Normaliser| match config.loss_average {
        LossAverage::Token => normaliser.token_mean(values_bt, mask_bt),
        LossAverage::Sequence => normaliser.sequence_mean(values_bt, mask_bt),
        LossAverage::Constant => normaliser.constant_mean(values_bt, mask_bt),
    };
    let mean = |values_bt: Tensor<2>| mean_over(values_bt, mask_bt.clone(), normaliser);

    let log_ratio_bt = config.importance.log_ratio(logp_bt.clone(), old_logp_bt.clone(), mask_bt.clone());
    let policy = policy_term(logp_bt.clone(), log_ratio_bt, advantages_bt.detach(), config);
    let corrected = config.sampler_cap.zip(sampler_logp_bt);
    let corrected = corrected.map(|(cap, sampler_logp_bt)| sampler_weights(old_logp_bt, sampler_logp_bt, cap));
    let policy_bt = match &corrected {
        Some(weights) => policy.loss_bt * weights.weight_bt.clone(),
        None => policy.loss_bt,
    };
    let pg_loss = match policy_tokens {
        Some(PolicyTokens { mask_bt, normaliser }) => mean_over(policy_bt, mask_bt, &normaliser),
        None => mean(policy_bt),
    };
    let entropy = token_mean(logp_bt.clone().neg());
    let negative = neg_logp_bt.map(|neg_logp_bt| {
        let neg_logp_bt = if config.negative_grad { neg_logp_bt } else { neg_logp_bt.detach() };
        (mean(k3(logp_bt.clone(), neg_logp_bt.clone())), token_mean(neg_logp_bt.neg()))
    });
    let kl_ref = match ref_logp_bt {
        Some(ref_logp_bt) => mean(k3(logp_bt, ref_logp_bt.detach())),
        None => pg_loss.zeros_like(),
    };
    let mut total = pg_loss.clone() + entropy.clone() * config.eta1 + kl_ref.clone() * config.kl_ref;
    let nothing = pg_loss.clone().inner().full_like(f64::NAN);
    let (kl_neg, neg_entropy) = match negative {
        Some((kl_neg, neg_entropy)) => {
            total = total - kl_neg.clone() * config.gamma + neg_entropy.clone() * config.eta2;
            (kl_neg.inner(), neg_entropy.inner())
        }
        None => (nothing.clone(), nothing),
    };

    let mut values = vec![
        total.clone().inner(),
        pg_loss.inner(),
        kl_neg,
        entropy.inner(),
        neg_entropy,
        kl_ref.inner(),
        token_mean(policy.ratio_bt).inner(),
        token_mean(policy.clipped_high_bt).inner(),
        token_mean(policy.clipped_low_bt).inner(),
        token_mean(policy.clipped_dual_bt).inner(),
    ];
    if let Some(weights) = corrected {
        values.extend([weights.weight_bt, weights.capped_bt].map(|values_bt| token_mean(values_bt).inner()));
    }
    TapoLoss { total, parts: read_parts(Tensor::cat(values, 0)) }
}

fn policy_term(
    logp_bt: Tensor<2>,
    log_ratio_bt: Tensor<2>,
    advantages_bt: Tensor<2>,
    config: &TapoLossConfig,
) -> PolicyLoss {
    match config.policy {
        PolicyObjective::Clipped => policy_loss(log_ratio_bt, advantages_bt, &config.clip()),
        PolicyObjective::Sapo => sapo_loss(log_ratio_bt, advantages_bt, &config.gate()),
        PolicyObjective::Cispo => cispo_loss(logp_bt, log_ratio_bt, advantages_bt, config.cispo_max),
    }
}

/// Reads all parts from the device at once.
fn read_parts(values: Tensor<1>) -> TapoParts {
    let data = values.into_data();
    let mut values = data.iter::<f64>();
    let mut next = || values.next().unwrap_or(f64::NAN);
    TapoParts {
        loss: next(),
        pg_loss: next(),
        kl_neg: next(),
        entropy: next(),
        neg_entropy: next(),
        kl_ref: next(),
        ratio: next(),
        clipped_high: next(),
        clipped_low: next(),
        clipped_dual: next(),
        sampler: values.next().map(|sampler_weight| SamplerCorrection {
            sampler_weight,
            sampler_capped: values.next().unwrap_or(f64::NAN),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient::{BatchSize, LossNorm};
    use burn::tensor::Device;

    // Ratios of trainer to sampler.
    const RATIOS: [f32; 4] = [1.0, 1.5, 3.0, 0.5];

    /// Two responses, with two tokens and with one. The weight changes only the policy term, not the other terms and
    /// not the ratio.
    fn loss(sampler_cap: Option<f64>) -> (TapoLoss, Vec<f32>) {
        loss_of(TapoLossConfig { sampler_cap, ..TapoLossConfig::default() }, None)
    }

    /// The same with the policy loss of the tokens that `chosen` marks.
    fn loss_of(config: TapoLossConfig, chosen: Option<[[f32; 2]; 2]>) -> (TapoLoss, Vec<f32>) {
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
            policy_tokens: chosen.map(|chosen| {
                let size = BatchSize { tokens: chosen.as_flattened().iter().sum::<f32>() as usize, sequences: 2 };
                PolicyTokens { mask_bt: tensor(chosen), normaliser: LossNorm::Batch.normaliser(size, size, 1) }
            }),
        };
        let size = BatchSize { tokens: 3, sequences: 2 };
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

    #[test]
    fn the_policy_loss_of_some_tokens_by_hand() {
        // Losses -2, -2 and 4: of the second token of the first response and the one of the second, and of all.
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        for (loss_average, one_each, first) in
            [(LossAverage::Token, 1.0, -2.0), (LossAverage::Sequence, 1.0, -1.0), (LossAverage::Constant, 1.0, -1.0)]
        {
            let config = TapoLossConfig { loss_average, ..TapoLossConfig::default() };
            let (all, all_grad) = loss_of(config, None);
            let (some, some_grad) = loss_of(config, Some([[0.0, 1.0], [1.0, 0.0]]));
            close(some.parts.pg_loss, one_each);
            close(loss_of(config, Some([[0.0, 1.0], [0.0, 0.0]])).0.parts.pg_loss, first);
            // The other terms are over all tokens.
            assert!(all.parts.entropy == some.parts.entropy && all.parts.kl_neg == some.parts.kl_neg);
            // Gradients of the policy term: over all tokens -2/3 for the first in a token mean, half of that mean otherwise.
            let all_first = if loss_average == LossAverage::Token { -2.0 / 3.0 } else { -0.5 };
            let all_first = if loss_average == LossAverage::Constant { -1.0 } else { all_first };
            close(f64::from(some_grad[0] - all_grad[0]), -all_first);
            let difference = (some.parts.pg_loss - all.parts.pg_loss) - (some.parts.loss - all.parts.loss);
            close(difference, 0.0);
        }
    }
}
