//! The TAPO loss: `mean(L) - gamma mean(k3(pi, pi_neg)) + eta1 mean(-log pi) + eta2 mean(-log pi_neg)`, paper 4.3,
//! equations 3 and 4. Deviations from the paper: k3 takes the inverse ratio (see [`crate::k3`]), and the entropies
//! are -log pi, where it prints log pi; both as the released code has them. Deviations from the released code: one
//! mean over the update's whole batch ([`crate::LossNorm`]), and gradient through log pi_neg (`negative_grad`).

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ClipConfig, Normaliser, TrainError, k3, policy_loss};

/// How token losses of the policy and KL terms are averaged. The entropy terms are always token means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LossAverage {
    /// Every token weighs the same (equation 4).
    #[default]
    Token,
    /// Every sequence weighs the same.
    Sequence,
    /// Every token of every update weighs the same: the sum is divided by sequences times `max_new_tokens` (Dr. GRPO; see
    /// [`Normaliser::constant_mean`]).
    Constant,
}

/// Coefficients of the TAPO loss. The defaults are the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TapoLossConfig {
    /// The importance ratio's lower bound is `1 - clip_low`.
    pub clip_low: f64,
    /// The importance ratio's upper bound is `1 + clip_high`.
    pub clip_high: f64,
    /// Dual clip for negative advantages.
    pub clip_dual: f64,
    /// Weight of the inter-class term, which pushes pi away from pi on the negative image.
    pub gamma: f64,
    /// Weight of the entropy on the update's image. Positive lowers it: every sampled token is pushed up.
    pub eta1: f64,
    /// Weight of the entropy on the negative image.
    pub eta2: f64,
    /// Weight of `KL(pi || reference model)`; 0 (the default) needs no reference model.
    pub kl_ref: f64,
    /// Averaging of the policy and KL terms.
    pub loss_average: LossAverage,
    /// Whether log pi_neg carries gradient. `false`: as released, the second entropy then has no effect.
    pub negative_grad: bool,
}

impl Default for TapoLossConfig {
    fn default() -> Self {
        let ClipConfig { clip_low, clip_high, clip_dual } = ClipConfig::default();
        Self {
            clip_low,
            clip_high,
            clip_dual,
            gamma: 0.01,
            eta1: 0.03,
            eta2: 0.03,
            kl_ref: 0.0,
            loss_average: LossAverage::Token,
            negative_grad: true,
        }
    }
}

impl TapoLossConfig {
    /// The bounds of the importance ratio.
    pub fn clip(&self) -> ClipConfig {
        ClipConfig { clip_low: self.clip_low, clip_high: self.clip_high, clip_dual: self.clip_dual }
    }

    /// Whether any term of the loss looks at the negative image. Else it is not encoded, which halves an update.
    pub fn needs_negative(&self) -> bool {
        self.gamma != 0.0 || self.eta2 != 0.0
    }

    /// The same with gamma and both entropy weights times `factor` (see [`crate::TermSchedule`]).
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { gamma: self.gamma * factor, eta1: self.eta1 * factor, eta2: self.eta2 * factor, ..self }
    }

    /// Checks every coefficient.
    ///
    /// # Errors
    /// A clip bound out of range (see [`ClipConfig::validate`]), or a weight that is not finite.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.clip().validate()?;
        let weights = [("gamma", self.gamma), ("eta1", self.eta1), ("eta2", self.eta2), ("kl_ref", self.kl_ref)];
        for (key, value) in weights {
            if !value.is_finite() {
                return Err(TrainError::Setting { key, value: value.to_string(), expected: "a finite number" });
            }
        }
        Ok(())
    }
}

/// What the loss of one micro-batch is made of. All `[batch, response]`; masked entries must be finite.
pub struct TapoInputs {
    /// Log-probability of each sampled token under the policy on the update's image; carries gradient.
    pub logp_bt: Tensor<2>,
    /// The same before the step's first update; a constant.
    pub old_logp_bt: Tensor<2>,
    /// The same tokens under the policy on the negative image. Without it neither the inter-class term nor the negative's
    /// entropy is part of the loss, whatever their weights.
    pub neg_logp_bt: Option<Tensor<2>>,
    /// The same tokens under a reference model, if there is one; a constant. Without it `kl_ref` has no effect.
    pub ref_logp_bt: Option<Tensor<2>>,
    /// Group advantage of the response, on each of its tokens.
    pub advantages_bt: Tensor<2>,
    /// 1 up to and including the first end token, else 0.
    pub mask_bt: Tensor<2>,
}

/// Parts of the loss, read from the device. Each is this micro-batch's share: the sum over the micro-batches of an
/// update is the update's mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TapoParts {
    /// The whole loss.
    pub loss: f64,
    /// Policy term.
    pub pg_loss: f64,
    /// Estimate of KL(pi || pi_neg), before gamma; not a number where the negative image is not looked at.
    pub kl_neg: f64,
    /// Mean of -log pi over the sampled tokens.
    pub entropy: f64,
    /// Mean of -log pi_neg over the sampled tokens; not a number where the negative image is not looked at.
    pub neg_entropy: f64,
    /// Estimate of KL(pi || reference model), before its weight; 0 without one.
    pub kl_ref: f64,
    /// Mean importance ratio pi / pi_old.
    pub ratio: f64,
    /// Share of tokens stopped by the upper clip.
    pub clipped_high: f64,
    /// Share of tokens stopped by the lower clip.
    pub clipped_low: f64,
    /// Share of tokens stopped by the dual clip.
    pub clipped_dual: f64,
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
    }
}

/// The loss to differentiate, and its parts.
pub struct TapoLoss {
    /// Total, shape `[1]`, on the tape of `logp_bt` (and of `neg_logp_bt` with `negative_grad`).
    pub total: Tensor<1>,
    /// Detached values.
    pub parts: TapoParts,
}

/// TAPO loss of one micro-batch.
///
/// `normaliser` says what the micro-batch is a share of; with [`crate::LossNorm::Batch`] the gradients of all
/// micro-batches add up to those of the whole batch.
pub fn tapo_loss(inputs: TapoInputs, config: &TapoLossConfig, normaliser: &Normaliser) -> TapoLoss {
    let TapoInputs { logp_bt, old_logp_bt, neg_logp_bt, ref_logp_bt, advantages_bt, mask_bt } = inputs;
    let token_mean = |values_bt: Tensor<2>| normaliser.token_mean(values_bt, mask_bt.clone());
    let mean = |values_bt: Tensor<2>| match config.loss_average {
        LossAverage::Token => token_mean(values_bt),
        LossAverage::Sequence => normaliser.sequence_mean(values_bt, mask_bt.clone()),
        LossAverage::Constant => normaliser.constant_mean(values_bt, mask_bt.clone()),
    };

    let policy = policy_loss(logp_bt.clone(), old_logp_bt.detach(), advantages_bt.detach(), &config.clip());
    let pg_loss = mean(policy.loss_bt);
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

    let values = Tensor::cat(
        vec![
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
        ],
        0,
    );
    TapoLoss { total, parts: read_parts(values) }
}

/// One read from the device for all parts.
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
    }
}
