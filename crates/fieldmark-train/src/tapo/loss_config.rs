//! The settings of the TAPO loss: which policy loss, the weights of the terms, and what their means are over.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{CISPO_MAX, ClipConfig, Importance, PolicyObjective, SapoConfig, VisualTokens};
use crate::TrainError;

/// How the policy and KL terms are averaged over tokens. The entropy terms are always token means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LossAverage {
    /// Mean over all tokens: every token weighs the same (equation 4).
    #[default]
    Token,
    /// Mean over sequences of each sequence's token mean: every sequence weighs the same.
    Sequence,
    /// Sum over all tokens, divided by the number of sequences times `max_new_tokens`: every token weighs the same in
    /// every update (Dr. GRPO).
    Constant,
}

/// The TAPO loss: `mean(policy) - gamma mean(KL to the negative) + eta1 entropy + eta2 entropy on the negative`. The
/// defaults are the paper's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TapoLossConfig {
    /// What keeps the policy near the one that sampled: `clipped` (the paper), `sapo` or `cispo`.
    pub policy: PolicyObjective,
    /// `clipped`: the importance ratio is clipped from below at `1 - clip_low`.
    pub clip_low: f64,
    /// `clipped`: the importance ratio is clipped from above at `1 + clip_high`.
    pub clip_high: f64,
    /// `clipped`: if the advantage A is negative, the policy loss is at most `clip_dual * |A|` (dual clip). `inf` means
    /// no limit.
    pub clip_dual: f64,
    /// `sapo`: temperature of the gate if the advantage is positive. A higher one holds back more.
    pub sapo_tau_pos: f64,
    /// `sapo`: temperature of the gate if the advantage is negative.
    pub sapo_tau_neg: f64,
    /// `cispo`: largest importance ratio that a token is weighed by. `inf` means no limit.
    pub cispo_max: f64,
    /// Importance ratio per `token`, or per `sequence` (GSPO, which clips at about 3e-4 and 4e-4).
    pub importance: Importance,
    /// Truncated importance sampling: multiplies each token's policy loss by π_old / π_sampler, limited to this cap (TRL:
    /// 2). This corrects for differences between sampler and trainer. Rollouts scored on another image than the one they
    /// were sampled from are not corrected. Unset: no correction.
    pub sampler_cap: Option<f64>,
    /// Share of the tokens of each response whose policy loss counts (VEPO: 0.2): those whose distribution changes most with
    /// the negative image, and that are uncertain. Unset: all.
    pub visual_tokens: Option<f64>,
    /// `visual_tokens`: weight, from 0 to 1, of the divergence between the two distributions; the rest is the weight of the
    /// difference of their entropies.
    pub visual_alpha: f64,
    /// Weight of the inter-class term, which pushes the policy on the update's image away from the policy on the
    /// negative image.
    pub gamma: f64,
    /// Weight of the entropy on the update's image. A positive weight lowers the entropy: every sampled token becomes
    /// more likely.
    pub eta1: f64,
    /// Weight of the entropy on the negative image.
    pub eta2: f64,
    /// Weight of `KL(pi || reference model)`. The default, 0, needs no reference model.
    pub kl_ref: f64,
    /// How the policy and KL terms are averaged: `token`, `sequence` or `constant`.
    pub loss_average: LossAverage,
    /// Whether gradients flow through the log-probabilities on the negative image. `false` is the released code; `eta2`
    /// then has no effect on the gradient.
    pub negative_grad: bool,
}

impl Default for TapoLossConfig {
    fn default() -> Self {
        let ClipConfig { clip_low, clip_high, clip_dual } = ClipConfig::default();
        let SapoConfig { tau_pos, tau_neg } = SapoConfig::default();
        Self {
            policy: PolicyObjective::Clipped,
            clip_low,
            clip_high,
            clip_dual,
            sapo_tau_pos: tau_pos,
            sapo_tau_neg: tau_neg,
            cispo_max: CISPO_MAX,
            importance: Importance::Token,
            sampler_cap: None,
            visual_tokens: None,
            visual_alpha: 0.7,
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

    /// The temperatures of the gate.
    pub fn gate(&self) -> SapoConfig {
        SapoConfig { tau_pos: self.sapo_tau_pos, tau_neg: self.sapo_tau_neg }
    }

    /// Returns true if a term of the loss uses the negative image. If none does, it is not encoded, which halves the
    /// work of an update.
    pub fn needs_negative(&self) -> bool {
        self.gamma != 0.0 || self.eta2 != 0.0
    }

    /// Which tokens' policy loss counts, if not that of all.
    pub fn visual(&self) -> Option<VisualTokens> {
        self.visual_tokens.map(|share| VisualTokens { share, alpha: self.visual_alpha })
    }

    /// Returns true if the negative image is read: by a term of the loss, or to choose tokens.
    pub fn reads_negative(&self) -> bool {
        self.needs_negative() || self.visual_tokens.is_some()
    }

    /// Multiplies gamma and both entropy weights by `factor` (see [`TermSchedule`](super::policy::TermSchedule)).
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self { gamma: self.gamma * factor, eta1: self.eta1 * factor, eta2: self.eta2 * factor, ..self }
    }

    /// Checks every coefficient.
    ///
    /// # Errors
    /// Returns an error if a clip bound is out of range (see [`ClipConfig::validate`]), a temperature is not positive,
    /// `cispo_max` or `sampler_cap` is below 1, `visual_tokens` or `visual_alpha` is outside 0..1, a weight is not finite,
    /// or a setting is changed that nothing uses.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.clip().validate()?;
        let caps = [("cispo_max", Some(self.cispo_max)), ("sampler_cap", self.sampler_cap)];
        for (key, cap) in caps {
            if let Some(cap) = cap.filter(|cap| !(1.0..=f64::INFINITY).contains(cap)) {
                return Err(TrainError::Setting { key, value: cap.to_string(), expected: "at least 1" });
            }
        }
        self.gate().validate()?;
        self.check_policy()?;
        self.check_visual()?;
        let weights = [("gamma", self.gamma), ("eta1", self.eta1), ("eta2", self.eta2), ("kl_ref", self.kl_ref)];
        for (key, value) in weights {
            if !value.is_finite() {
                return Err(TrainError::Setting { key, value: value.to_string(), expected: "a finite number" });
            }
        }
        Ok(())
    }

    fn check_visual(&self) -> Result<(), TrainError> {
        let refuse = |key, value: f64, expected| Err(TrainError::Setting { key, value: value.to_string(), expected });
        match self.visual_tokens {
            Some(share) if !(share > 0.0 && share <= 1.0) => refuse("visual_tokens", share, "above 0 and at most 1"),
            None if self.visual_alpha != Self::default().visual_alpha => {
                refuse("visual_alpha", self.visual_alpha, "left out, or tapo.loss.visual_tokens must be set")
            }
            _ if !(0.0..=1.0).contains(&self.visual_alpha) => {
                refuse("visual_alpha", self.visual_alpha, "at least 0 and at most 1")
            }
            _ => Ok(()),
        }
    }

    /// Refuses a setting of SAPO or CISPO that does nothing because `policy` is another. The clips are not refused:
    /// recipes that are laid over others leave them there.
    fn check_policy(&self) -> Result<(), TrainError> {
        let default = Self::default();
        let (sapo, cispo) = (PolicyObjective::Sapo, PolicyObjective::Cispo);
        let (only_sapo, only_cispo) = (
            "left out, or tapo.loss.policy must be \"sapo\", which alone uses it",
            "left out, or tapo.loss.policy must be \"cispo\", which alone uses it",
        );
        let settings = [
            ("sapo_tau_pos", self.sapo_tau_pos, default.sapo_tau_pos, sapo, only_sapo),
            ("sapo_tau_neg", self.sapo_tau_neg, default.sapo_tau_neg, sapo, only_sapo),
            ("cispo_max", self.cispo_max, default.cispo_max, cispo, only_cispo),
        ];
        match settings.into_iter().find(|&(_, value, default, user, _)| value != default && self.policy != user) {
            Some((key, value, _, _, expected)) => Err(TrainError::Setting { key, value: value.to_string(), expected }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(config: TapoLossConfig) -> Option<&'static str> {
        match config.validate() {
            Ok(()) => None,
            Err(TrainError::Setting { key, .. }) => Some(key),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn each_policy_has_settings_of_its_own() {
        let of = |policy| TapoLossConfig { policy, ..TapoLossConfig::default() };
        let (clipped, sapo, cispo) = (PolicyObjective::Clipped, PolicyObjective::Sapo, PolicyObjective::Cispo);
        for (policy, [pos, neg, max]) in [
            (clipped, [Some("sapo_tau_pos"), Some("sapo_tau_neg"), Some("cispo_max")]),
            (sapo, [None, None, Some("cispo_max")]),
            (cispo, [Some("sapo_tau_pos"), Some("sapo_tau_neg"), None]),
        ] {
            assert_eq!(key(of(policy)), None);
            assert_eq!(key(TapoLossConfig { clip_high: 0.1, ..of(policy) }), None);
            assert_eq!(key(TapoLossConfig { sapo_tau_pos: 2.0, ..of(policy) }), pos, "{policy:?}");
            assert_eq!(key(TapoLossConfig { sapo_tau_neg: 2.0, ..of(policy) }), neg, "{policy:?}");
            assert_eq!(key(TapoLossConfig { cispo_max: 2.0, ..of(policy) }), max, "{policy:?}");
        }
        for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(key(TapoLossConfig { sapo_tau_pos: value, ..of(sapo) }), Some("sapo_tau_pos"));
            assert_eq!(key(TapoLossConfig { sapo_tau_neg: value, ..of(sapo) }), Some("sapo_tau_neg"));
        }
        for value in [0.99, -1.0, f64::NAN] {
            assert_eq!(key(TapoLossConfig { cispo_max: value, ..of(cispo) }), Some("cispo_max"));
        }
        assert_eq!(key(TapoLossConfig { cispo_max: f64::INFINITY, ..of(cispo) }), None);
    }

    #[test]
    fn a_share_of_tokens_is_above_zero_and_at_most_one() {
        let of =
            |visual_tokens, visual_alpha| TapoLossConfig { visual_tokens, visual_alpha, ..TapoLossConfig::default() };
        for share in [0.0, -0.1, 1.01, f64::NAN] {
            assert_eq!(key(of(Some(share), 0.7)), Some("visual_tokens"), "{share}");
        }
        for alpha in [-0.1, 1.1, f64::NAN] {
            assert_eq!(key(of(Some(0.2), alpha)), Some("visual_alpha"), "{alpha}");
        }
        assert_eq!(key(of(None, 0.5)), Some("visual_alpha"));
        assert!([0.0, 0.5, 1.0].into_iter().all(|alpha| key(of(Some(1.0), alpha)).is_none()));
        let none = TapoLossConfig { gamma: 0.0, eta2: 0.0, ..TapoLossConfig::default() };
        let chosen = TapoLossConfig { visual_tokens: Some(0.2), ..none };
        assert!(!none.reads_negative() && chosen.reads_negative() && !chosen.needs_negative());
    }
}
