//! The settings of SFT.

use fieldmark_model::TrainableParts;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    TrainError,
    gradient::{LossNorm, Passes, Scorer},
    optim::{AdamWSettings, GradClipper, LrSchedule},
    params::check_learns,
};

/// Supervised fine-tuning (SFT). The defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SftConfig {
    /// Number of passes over the data.
    pub epochs: usize,
    /// Number of sequences per update.
    pub batch: usize,
    /// Largest number of sequences in a micro-batch, that is, in memory at a time.
    pub micro_batch: usize,
    /// Largest number of tokens in a micro-batch. A longer sequence forms a micro-batch alone. 0 means no limit.
    pub micro_tokens: usize,
    /// Whether to put the sequences of a micro-batch one after another in a single row, each attending only to itself,
    /// instead of padding them to the longest. The result is the same.
    pub packing: bool,
    /// Whether to run each block again in the backward pass instead of keeping its activations: less memory, more time.
    /// Also called gradient checkpointing.
    pub recompute: bool,
    /// Number of queries whose attention scores are computed at a time in the backward pass. 0 means all.
    pub query_chunk: usize,
    /// Number of micro-batches computed in parallel on each device. Use up to the number of cores on a CPU, and 1 on a
    /// GPU.
    pub workers: usize,
    /// Learning rate over the run.
    pub schedule: LrSchedule,
    /// Settings of the AdamW optimiser.
    pub adamw: AdamWSettings,
    /// Largest global gradient norm: gradients above it are scaled down to it. `inf` turns clipping off.
    pub max_grad_norm: f64,
    /// Whether the loss is a mean over the whole `batch` or over each micro-batch (`micro`).
    pub loss_norm: LossNorm,
    /// Number of updates between two validations. The validation set is always scored at the end; 0 means only there.
    /// Unset: once per epoch.
    pub eval_every: Option<usize>,
    /// Which parts of the model are trained.
    pub train: TrainableParts,
    /// Number of positions whose logits are computed at a time.
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
    /// Number of updates of a run over `rows` rows. The last batch of an epoch may be smaller.
    pub fn updates(&self, rows: usize) -> usize {
        self.epochs * rows.div_ceil(self.batch.max(1))
    }

    /// Returns the settings that decide how an update is split into passes.
    pub fn passes(&self) -> Passes {
        let &Self { micro_batch, micro_tokens, packing, recompute, query_chunk, logit_chunk, workers, .. } = self;
        Passes { micro_batch, micro_tokens, packing, recompute, query_chunk, logit_chunk, workers }
    }

    /// Makes the scorer of micro-batches.
    ///
    /// # Errors
    /// Returns an error if `logit_chunk` is 0.
    pub fn scorer(&self, pad_id: u32) -> Result<Scorer, TrainError> {
        Scorer::for_passes(&self.passes(), 1.0, pad_id)
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// Returns an error for the first setting that is out of range.
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
        check_learns(self.train)?;
        self.adamw.validate()?;
        GradClipper::new(self.max_grad_norm)?;
        self.schedule.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_in_which_nothing_learns_is_refused() {
        let with = |vision, projector, decoder| SftConfig {
            train: TrainableParts { vision, projector, decoder },
            ..SftConfig::default()
        };
        let refused = with(false, false, false).validate();
        assert!(matches!(refused, Err(TrainError::Setting { key: "train", .. })), "{refused:?}");
        for (vision, projector, decoder) in [(true, false, false), (false, true, false), (false, false, true)] {
            assert!(with(vision, projector, decoder).validate().is_ok());
        }
    }
}
