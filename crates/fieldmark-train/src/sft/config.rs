//! Settings of SFT, with the paper's as defaults.

use fieldmark_model::TrainableParts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    TrainError,
    gradient::{LossNorm, Scorer, TrunkSettings},
    optim::{AdamWSettings, LrSchedule},
};

/// Everything that decides how SFT runs. The defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SftConfig {
    /// Passes over the data.
    pub epochs: usize,
    /// Sequences an update.
    pub batch: usize,
    /// Sequences in memory at once, at most.
    pub micro_batch: usize,
    /// Tokens in memory at once, at most; a longer sequence is alone. 0 sets no limit.
    pub micro_tokens: usize,
    /// Whether the sequences of a micro-batch lie one after another, each attending to itself alone, instead of being
    /// padded to the longest. The result is the same.
    pub packing: bool,
    /// Whether blocks are run again in the backward pass instead of keeping what they computed.
    pub recompute: bool,
    /// Queries whose attention scores exist at once in the backward pass; 0 is all.
    pub query_chunk: usize,
    /// Micro-batches computed side by side on each device: up to the number of cores on a CPU, 1 on a GPU.
    pub workers: usize,
    /// Learning rate over the run.
    pub schedule: LrSchedule,
    /// The optimiser's constants.
    pub adamw: AdamWSettings,
    /// The gradients' global norm is cut to this.
    pub max_grad_norm: f64,
    /// What the loss is a mean over.
    pub loss_norm: LossNorm,
    /// Updates between two scorings of the validation set, which is scored at the end too; 0: only there. Without it, once
    /// an epoch.
    pub eval_every: Option<usize>,
    /// Which parts learn.
    pub train: TrainableParts,
    /// States that meet the vocabulary at once.
    pub logit_chunk: usize,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch: 64,
            micro_batch: 4,
            micro_tokens: 0,
            packing: true,
            recompute: true,
            query_chunk: 512,
            workers: 1,
            schedule: LrSchedule::default(),
            adamw: AdamWSettings { weight_decay: 0.1, ..AdamWSettings::default() },
            max_grad_norm: 1.0,
            loss_norm: LossNorm::Batch,
            eval_every: None,
            train: TrainableParts { vision: false, projector: false, decoder: true },
            logit_chunk: 1024,
        }
    }
}

impl SftConfig {
    /// Updates of a run over `rows` rows: the last batch of an epoch may be smaller.
    pub fn updates(&self, rows: usize) -> usize {
        self.epochs * rows.div_ceil(self.batch.max(1))
    }

    /// How micro-batches are scored.
    ///
    /// # Errors
    /// A chunk of 0.
    pub fn scorer(&self, pad_id: u32) -> Result<Scorer, TrainError> {
        let trunk = TrunkSettings { recompute: self.recompute, query_chunk: self.query_chunk };
        Ok(Scorer::new(self.logit_chunk, 1.0, pad_id)?.with_trunk(trunk).with_packing(self.packing))
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// The first that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        let counts = [
            ("epochs", self.epochs),
            ("batch", self.batch),
            ("micro_batch", self.micro_batch),
            ("logit_chunk", self.logit_chunk),
        ];
        for (key, value) in counts {
            if value == 0 {
                return Err(TrainError::Setting { key, value: "0".into(), expected: "at least 1" });
            }
        }
        self.schedule.validate()
    }
}
