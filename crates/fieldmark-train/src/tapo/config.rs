//! The settings of TAPO. The defaults are the paper's (Fine-R1, arXiv 2602.07605, section 4.3).
//!
//! If the paper and the released code differ, the default follows the paper and a setting selects the code's behaviour:
//! [`UpdateImage`], `negative_grad`, [`LossNorm`], and `released` of [`LrSchedule`] (learning rate 0 in the first
//! step).

use std::collections::BTreeMap;

use fieldmark_model::TrainableParts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    advantage::Estimator,
    loss_config::TapoLossConfig,
    policy::TermSchedule,
    rollout::{BlackPatches, GroupFilter, ImageRole, NegativeImage, Surplus},
};
use crate::{
    TrainError,
    gradient::{LossNorm, Passes, Scorer},
    optim::{AdamWSettings, LrSchedule, LrShape},
};

/// The image that positive rollouts are scored on: for π_old and in the update.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UpdateImage {
    /// The anchor, for every rollout (paper).
    #[default]
    Anchor,
    /// The image that the rollout was sampled from (released code).
    Own,
}

impl UpdateImage {
    /// Returns true if a rollout of `role` is scored on the image it was sampled from.
    pub fn is_own_of(self, role: ImageRole) -> bool {
        role == ImageRole::Anchor || self == Self::Own
    }
}

/// Triplet-augmented policy optimisation (TAPO). The defaults are the paper's for the 3B model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TapoConfig {
    /// Sets only the number of steps: epochs × rows / `prompts_per_step`, at least 1.
    pub epochs: usize,
    /// Number of groups (prompts with all their rollouts) that a step trains on.
    pub prompts_per_step: usize,
    /// Largest number of prompts drawn at a time until a step has enough groups that pass the filter. Fewer are drawn if
    /// fewer groups are missing, unless `whole_chunks` is set.
    pub chunk: usize,
    /// Whether each chunk has `chunk` prompts, even if fewer groups are missing (released code).
    pub whole_chunks: bool,
    /// What happens to groups that pass the filter and that the step does not need: the `next` step trains on them as
    /// far as it needs them, or `drop` (released code). Without `whole_chunks` there are none.
    pub surplus: Surplus,
    /// Largest number of chunks drawn for a step. A chunk with fewer prompts counts as the part of a chunk that it is.
    /// If the number is reached, the step trains on the groups there are.
    pub max_tries: usize,
    /// n₁: number of rollouts per prompt from the anchor image.
    pub anchor_rollouts: usize,
    /// n₂: number of rollouts per prompt from the positive image. With 0, samples need no positive.
    pub positive_rollouts: usize,
    /// Sampling temperature. Log-probabilities are computed at the same temperature.
    pub temperature: f64,
    /// Top-p (nucleus) of the sampler. Log-probabilities ignore it.
    pub top_p: f64,
    /// Largest number of tokens in a response.
    pub max_new_tokens: usize,
    /// Largest number of responses decoded in parallel.
    pub generation_batch: usize,
    /// Weights of the rewards by name, for example `accuracy = 0.9`. A weight of 0 only measures. Names: `accuracy`
    /// (well-formed, and the one answer is the right name), `inclusion` (the answer contains the right name, as in the
    /// released code), `format`, `answer_only`, `exact`, `text_similarity`, `length_penalty` and `semantic`, plus those a
    /// program registers.
    pub rewards: BTreeMap<String, f64>,
    /// Whether a well-formed response has a think block before its answer. `false`: it is one answer block and nothing
    /// else, for the reward `accuracy` and the metric `strict`. Then pay for `answer_only` instead of `format`, and ask
    /// with the prompt `rl_no_think`.
    pub think: bool,
    /// Number of tokens before `max_new_tokens` over which the reward `length_penalty` falls from 0 to -1. The default
    /// is a fifth of the default `max_new_tokens`, as in DAPO.
    pub length_cache: usize,
    /// How advantages are computed from rewards.
    pub estimator: Estimator,
    /// Which groups to train on, by their mean accuracy (dynamic sampling).
    pub filter: GroupFilter,
    /// Number of responses per update.
    pub batch: usize,
    /// Largest number of responses in a micro-batch, that is, in memory at a time. With `loss.negative_grad`, each
    /// response is there twice: with the update's image and with the negative image.
    pub micro_batch: usize,
    /// Largest number of tokens in a micro-batch; with `packing`, a shared prompt counts once. A longer response forms a
    /// micro-batch alone. 0 means no limit.
    pub micro_tokens: usize,
    /// Whether to put the sequences of a micro-batch one after another in a single row, each attending only to itself,
    /// instead of padding them to the longest. Responses to the same prompt then share it: it is read once. The result is
    /// the same.
    pub packing: bool,
    /// Whether to run each block again in the backward pass instead of keeping its activations: less memory, more time.
    /// Also called gradient checkpointing.
    pub recompute: bool,
    /// Number of queries whose attention scores are computed at a time in the backward pass. 0 means all.
    pub query_chunk: usize,
    /// Number of micro-batches computed, and of shares of the rollouts sampled, in parallel on each device. Use up to
    /// the number of cores on a CPU, and 1 on a GPU.
    pub workers: usize,
    /// Source of the negative images: the sample's own photograph (`triplet`) or the anchor with black `patches`.
    pub negative: NegativeImage,
    /// Settings of the black patches. Used if `negative = "patches"`.
    pub patches: BlackPatches,
    /// Image that positive rollouts are scored on: the `anchor`, or their `own` image (released code).
    pub update_image: UpdateImage,
    /// Coefficients and clips of the loss.
    pub loss: TapoLossConfig,
    /// Whether `gamma` and the entropy weights stay constant (`fixed`) or fall to 0 over the first half of the steps
    /// (`anneal`).
    pub terms: TermSchedule,
    /// Whether the loss is a mean over the whole `batch` of an update or over each micro-batch (`micro`, released
    /// code).
    pub loss_norm: LossNorm,
    /// Learning rate over the run.
    pub schedule: LrSchedule,
    /// Settings of the AdamW optimiser.
    pub adamw: AdamWSettings,
    /// Largest global gradient norm: gradients above it are scaled down to it. `inf` turns clipping off.
    pub max_grad_norm: f64,
    /// Number of rollout steps between two validations. The validation set is always scored before the first step and
    /// at the end; 0 means only there. Unset: once per epoch.
    pub eval_every: Option<usize>,
    /// Which parts of the model are trained.
    pub train: TrainableParts,
    /// Number of positions whose logits are computed at a time.
    pub logit_chunk: usize,
}

impl Default for TapoConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            prompts_per_step: 384,
            chunk: 128,
            whole_chunks: false,
            surplus: Surplus::Next,
            max_tries: 20,
            anchor_rollouts: 5,
            positive_rollouts: 5,
            temperature: 1.0,
            top_p: 0.99,
            max_new_tokens: 2048,
            generation_batch: 64,
            rewards: [("accuracy".into(), 0.9), ("format".into(), 0.1)].into(),
            think: true,
            length_cache: 410,
            estimator: Estimator::Grpo,
            filter: GroupFilter::default(),
            batch: 1280,
            micro_batch: 5,
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
    /// Number of rollout steps of a run over `rows` samples. The filter is not taken into account.
    pub fn steps(&self, rows: usize) -> usize {
        (self.epochs * rows / self.prompts_per_step.max(1)).max(1)
    }

    /// Number of updates of a full step.
    pub fn updates_per_step(&self) -> usize {
        (self.prompts_per_step * (self.anchor_rollouts + self.positive_rollouts)).div_ceil(self.batch.max(1))
    }

    /// Returns the settings that decide how an update is split into passes.
    pub fn passes(&self) -> Passes {
        let &Self { micro_batch, micro_tokens, packing, recompute, query_chunk, logit_chunk, workers, .. } = self;
        Passes { micro_batch, micro_tokens, packing, recompute, query_chunk, logit_chunk, workers }
    }

    /// Makes the scorer of micro-batches.
    ///
    /// # Errors
    /// Returns an error if `logit_chunk` is 0 or `temperature` is not positive.
    pub fn scorer(&self, pad_id: u32) -> Result<Scorer, TrainError> {
        Scorer::for_passes(&self.passes(), self.temperature, pad_id)
    }

    /// Number of responses in a group.
    pub fn group(&self) -> usize {
        self.anchor_rollouts.saturating_add(self.positive_rollouts)
    }
}
