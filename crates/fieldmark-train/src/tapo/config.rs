//! Settings of TAPO, with the paper's as defaults (Fine-R1, arXiv 2602.07605, section 4.3).
//!
//! Where the paper and its code differ, the paper's way is the default and the code's has a name: [`UpdateImage`],
//! `negative_grad`, [`LossNorm`], and a first update whose learning rate is not 0 ([`LrSchedule`]).

use std::collections::BTreeMap;

use fieldmark_model::TrainableParts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    advantage::Estimator,
    loss::TapoLossConfig,
    policy::TermSchedule,
    rollout::{BlackPatches, GroupFilter, ImageRole, NegativeImage},
};
use crate::{
    TrainError,
    gradient::{ChunkedLogProbs, LossNorm, Scorer, TrunkSettings},
    optim::{AdamWSettings, GradClipper, LrSchedule, LrShape},
};

/// The image that a positive rollout is scored on, before and during the update.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpdateImage {
    /// The anchor, for every rollout, π_old included: the paper.
    #[default]
    Anchor,
    /// The image it was sampled from: the released code.
    Own,
}

impl UpdateImage {
    /// Whether a rollout of `role` is scored on the image that it was sampled from.
    pub fn is_own_of(self, role: ImageRole) -> bool {
        role == ImageRole::Anchor || self == Self::Own
    }
}

/// Everything that decides how TAPO runs. The defaults are the paper's for 3 B parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TapoConfig {
    /// Passes over the data that the number of steps is computed from.
    pub epochs: usize,
    /// Groups a step trains on.
    pub prompts_per_step: usize,
    /// Samples drawn at a time until a step's groups are found.
    pub chunk: usize,
    /// Chunks drawn for a step at most.
    pub max_tries: usize,
    /// n₁: rollouts from the anchor.
    pub anchor_rollouts: usize,
    /// n₂: rollouts from the positive.
    pub positive_rollouts: usize,
    /// Sampling temperature, also that of the log-probabilities.
    pub temperature: f64,
    /// Nucleus of the sampler; log-probabilities ignore it.
    pub top_p: f64,
    /// Most tokens of a response.
    pub max_new_tokens: usize,
    /// Most responses decoded side by side.
    pub generation_batch: usize,
    /// Weights of the rewards by their names (see [`crate::RewardRegistry`]); 0 only measures.
    pub rewards: BTreeMap<String, f64>,
    /// Tokens before `max_new_tokens` in which the reward `length_penalty` falls to -1. The default is a fifth, as in DAPO.
    pub length_cache: usize,
    /// How advantages are made from rewards.
    pub estimator: Estimator,
    /// Groups to train on: mean accuracy strictly inside.
    pub filter: GroupFilter,
    /// Sequences an update.
    pub batch: usize,
    /// Responses in memory at once, at most: each with its update's image and, where that is scored with gradient, with
    /// its negative one.
    pub micro_batch: usize,
    /// Tokens in memory at once, at most; a longer response is alone. 0 sets no limit.
    pub micro_tokens: usize,
    /// Whether the sequences of a micro-batch lie one after another, each attending to itself alone, instead of being
    /// padded to the longest. The result is the same.
    pub packing: bool,
    /// Whether blocks are run again in the backward pass instead of keeping what they computed.
    pub recompute: bool,
    /// Queries whose attention scores exist at once in the backward pass; 0 is all.
    pub query_chunk: usize,
    /// Micro-batches computed, and halves of the rollouts sampled, side by side: up to the number of cores on a CPU, 1 on a
    /// GPU.
    pub workers: usize,
    /// Where negative images come from.
    pub negative: NegativeImage,
    /// The black patches of `negative = "patches"`.
    pub patches: BlackPatches,
    /// Image of the update.
    pub update_image: UpdateImage,
    /// The loss.
    pub loss: TapoLossConfig,
    /// Whether γ and the entropy weights stay or fall.
    pub terms: TermSchedule,
    /// What the loss is a mean over.
    pub loss_norm: LossNorm,
    /// Learning rate over the run.
    pub schedule: LrSchedule,
    /// The optimiser's constants.
    pub adamw: AdamWSettings,
    /// The gradients' global norm is cut to this.
    pub max_grad_norm: f64,
    /// Rollout steps between two scorings of the validation set, which is scored before the first step and at the end too; 0:
    /// only there. Without it, once an epoch.
    pub eval_every: Option<usize>,
    /// Which parts learn.
    pub train: TrainableParts,
    /// States that meet the vocabulary at once.
    pub logit_chunk: usize,
}

impl Default for TapoConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            prompts_per_step: 384,
            chunk: 128,
            max_tries: 20,
            anchor_rollouts: 5,
            positive_rollouts: 5,
            temperature: 1.0,
            top_p: 0.99,
            max_new_tokens: 2048,
            generation_batch: 64,
            rewards: [("accuracy".into(), 0.9), ("format".into(), 0.1)].into(),
            length_cache: 410,
            estimator: Estimator::Grpo,
            filter: GroupFilter::default(),
            batch: 1280,
            micro_batch: 4,
            micro_tokens: 0,
            packing: true,
            recompute: true,
            query_chunk: 512,
            workers: 1,
            negative: NegativeImage::Triplet,
            patches: BlackPatches::default(),
            update_image: UpdateImage::Anchor,
            loss: TapoLossConfig::default(),
            terms: TermSchedule::Fixed,
            loss_norm: LossNorm::Batch,
            schedule: LrSchedule { lr: 1e-6, shape: LrShape::Constant, warmup: 0, released: false },
            adamw: AdamWSettings::default(),
            max_grad_norm: 1.0,
            eval_every: None,
            train: TrainableParts::default(),
            logit_chunk: 1024,
        }
    }
}

impl TapoConfig {
    /// Rollout steps of a run over `rows` samples, filtering not counted.
    pub fn steps(&self, rows: usize) -> usize {
        (self.epochs * rows / self.prompts_per_step.max(1)).max(1)
    }

    /// Updates of a full step.
    pub fn updates_per_step(&self) -> usize {
        (self.prompts_per_step * (self.anchor_rollouts + self.positive_rollouts)).div_ceil(self.batch.max(1))
    }

    /// How micro-batches are scored.
    ///
    /// # Errors
    /// A chunk of 0 or a temperature that is not positive.
    pub fn scorer(&self, pad_id: u32) -> Result<Scorer, TrainError> {
        let trunk = TrunkSettings { recompute: self.recompute, query_chunk: self.query_chunk };
        Ok(Scorer::new(self.logit_chunk, self.temperature, pad_id)?.with_trunk(trunk).with_packing(self.packing))
    }

    /// Checks every setting, so that a run refuses nothing once it has begun to write.
    ///
    /// # Errors
    /// The first that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        let counts = [
            ("epochs", self.epochs),
            ("chunk", self.chunk),
            ("anchor_rollouts + positive_rollouts", self.anchor_rollouts.saturating_add(self.positive_rollouts)),
            ("max_new_tokens", self.max_new_tokens),
            ("generation_batch", self.generation_batch),
            ("batch", self.batch),
            ("micro_batch", self.micro_batch),
            ("length_cache", self.length_cache),
        ];
        for (key, value) in counts {
            if value == 0 {
                return Err(TrainError::Setting { key, value: "0".into(), expected: "at least 1" });
            }
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            let expected = "above 0 and at most 1";
            return Err(TrainError::Setting { key: "top_p", value: self.top_p.to_string(), expected });
        }
        if self.rewards.contains_key("length_penalty") && self.length_cache > self.max_new_tokens {
            let (value, expected) = (self.length_cache.to_string(), "at most tapo.max_new_tokens");
            return Err(TrainError::Setting { key: "length_cache", value, expected });
        }
        ChunkedLogProbs::new(self.logit_chunk, self.temperature)?;
        self.filter.validate(self.prompts_per_step, self.max_tries)?;
        self.patches.validate()?;
        self.adamw.validate()?;
        GradClipper::new(self.max_grad_norm)?;
        self.schedule.validate()?;
        self.loss.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(config: TapoConfig) -> String {
        match config.validate().unwrap_err() {
            TrainError::Setting { key, .. } => key.into(),
            other => other.to_string(),
        }
    }

    #[test]
    fn every_setting_without_meaning_is_refused_under_its_key() {
        let config = TapoConfig::default;
        assert!(config().validate().is_ok());
        let none = |key: &str| {
            let value = serde_json::json!({ key: 0 });
            serde_json::from_value::<TapoConfig>(value).unwrap()
        };
        for count in [
            "epochs",
            "prompts_per_step",
            "chunk",
            "max_tries",
            "max_new_tokens",
            "generation_batch",
            "batch",
            "micro_batch",
            "length_cache",
            "max_grad_norm",
            "logit_chunk",
            "temperature",
            "top_p",
        ] {
            assert_eq!(key(none(count)), count);
        }
        assert!(key(TapoConfig { anchor_rollouts: 0, positive_rollouts: 0, ..config() }).contains("anchor_rollouts"));
        for value in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(key(TapoConfig { temperature: value, ..config() }), "temperature");
            assert_eq!(key(TapoConfig { top_p: value, ..config() }), "top_p");
        }
        assert_eq!(key(TapoConfig { top_p: 1.01, ..config() }), "top_p");
        assert!(TapoConfig { top_p: 1.0, ..config() }.validate().is_ok());
        for (low, high) in [(0.5, 0.5), (0.9, 0.1), (f64::NAN, 0.9), (0.1, f64::NAN)] {
            assert_eq!(
                key(TapoConfig { filter: GroupFilter { low, high, ..config().filter }, ..config() }),
                "filter.low"
            );
        }
        let penalised = |length_cache| TapoConfig {
            rewards: [("accuracy".into(), 1.0), ("length_penalty".into(), 0.5)].into(),
            length_cache,
            ..config()
        };
        assert!(penalised(2048).validate().is_ok());
        assert_eq!(key(penalised(2049)), "length_cache");
        let patches = BlackPatches { probability: 2.0, ..BlackPatches::default() };
        assert_eq!(key(TapoConfig { patches, ..config() }), "patches.probability");
        assert_eq!(key(TapoConfig { adamw: AdamWSettings { beta2: 1.0, ..config().adamw }, ..config() }), "beta2");
        assert_eq!(key(TapoConfig { schedule: LrSchedule { lr: -1.0, ..config().schedule }, ..config() }), "lr");
        assert_eq!(key(TapoConfig { loss: TapoLossConfig { gamma: f64::NAN, ..config().loss }, ..config() }), "gamma");
        for cap in [0.0, 0.99, -1.0, f64::NAN] {
            let loss = TapoLossConfig { sampler_cap: Some(cap), ..config().loss };
            assert_eq!(key(TapoConfig { loss, ..config() }), "sampler_cap");
        }
        for cap in [1.0, 2.0, f64::INFINITY] {
            let loss = TapoLossConfig { sampler_cap: Some(cap), ..config().loss };
            assert!(TapoConfig { loss, ..config() }.validate().is_ok());
        }
    }
}
