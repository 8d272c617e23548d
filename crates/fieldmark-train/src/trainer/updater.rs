//! One optimiser update: clip the gradients' global norm, step, and count what had to be skipped.

use std::path::Path;

use burn::{
    module::Module,
    optim::{GradientsParams, ModuleOptimizer},
    store::RecordError,
};
use fieldmark_model::Qwen25Vl;

use serde::{Deserialize, Serialize};

use crate::{
    TrainError,
    optim::{AdamWSettings, Clipped, GradClipper, LrSchedule},
};

/// Updates skipped one after another after which a run stops: what is wrong then will not go away by itself.
pub const MOST_SKIPPED_IN_A_ROW: usize = 3;

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Updated {
    /// Learning rate used.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Whether the parameters were left alone because the loss or the norm was not finite.
    pub skipped: bool,
}

/// Where a run's updates stand, beside the optimiser's moments.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdaterState {
    /// Updates made, skipped ones included; the schedule's place.
    pub done: usize,
    /// Updates skipped.
    pub skipped: usize,
}

/// Optimiser, clipping and schedule of one run.
pub struct Updater {
    optimizer: ModuleOptimizer,
    clipper: GradClipper,
    schedule: LrSchedule,
    total: usize,
    state: UpdaterState,
    skipped_in_a_row: usize,
}

impl Updater {
    /// For `total` updates of `model`.
    ///
    /// # Errors
    /// A setting out of range.
    pub fn new(
        model: &Qwen25Vl,
        adamw: AdamWSettings,
        schedule: LrSchedule,
        max_grad_norm: f64,
        total: usize,
    ) -> Result<Self, TrainError> {
        schedule.validate()?;
        Ok(Self {
            optimizer: adamw.init(model)?,
            clipper: GradClipper::new(max_grad_norm)?,
            schedule,
            total,
            state: UpdaterState::default(),
            skipped_in_a_row: 0,
        })
    }

    /// The same for another number of updates.
    pub fn with_total(mut self, total: usize) -> Self {
        self.total = total;
        self
    }

    /// Updates made so far, skipped ones included.
    pub fn done(&self) -> usize {
        self.state.done
    }

    /// Updates skipped so far.
    pub fn skipped(&self) -> usize {
        self.state.skipped
    }

    /// Updates skipped since the last that was not.
    pub fn skipped_in_a_row(&self) -> usize {
        self.skipped_in_a_row
    }

    /// Where the updates stand.
    pub fn state(&self) -> UpdaterState {
        self.state
    }

    /// The learning rate of the next update.
    pub fn lr(&self) -> f64 {
        self.schedule.at(self.state.done, self.total)
    }

    /// One update of `model` by `grads`, the gradients of `loss`. If either is not finite, `model` is left as it is.
    pub fn step<M: Module>(&mut self, model: M, loss: f64, grads: GradientsParams) -> (M, Updated) {
        self.step_at(self.lr(), model, loss, grads)
    }

    /// The same at another rate than the schedule's.
    pub fn step_at<M: Module>(&mut self, lr: f64, model: M, loss: f64, grads: GradientsParams) -> (M, Updated) {
        self.state.done += 1;
        match self.clipper.clip(grads, &model) {
            Clipped::Ready { grads, norm } if loss.is_finite() => {
                let model = self.optimizer.step(lr, model, grads);
                self.skipped_in_a_row = 0;
                (model, Updated { lr, grad_norm: norm, skipped: false })
            }
            Clipped::Ready { norm, .. } | Clipped::Skipped { norm } => {
                self.state.skipped += 1;
                self.skipped_in_a_row += 1;
                (model, Updated { lr, grad_norm: norm, skipped: true })
            }
        }
    }

    /// Writes the optimiser's moments in Burn's own format. They are filed under parameter ids, so the model's must be
    /// [stable](crate::stable_param_ids).
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save_optimizer(&self, path: &Path) -> Result<(), TrainError> {
        self.optimizer.save(path).map_err(|error| optimizer(path, error))
    }

    /// Continues where another run of the same settings stood: its counts, and its moments from the file that
    /// [`Self::save_optimizer`] wrote.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn restore(mut self, state: UpdaterState, moments: &Path) -> Result<Self, TrainError> {
        self.optimizer = self.optimizer.load(moments).map_err(|error| optimizer(moments, error))?;
        self.state = state;
        self.skipped_in_a_row = 0;
        Ok(self)
    }
}

fn optimizer(path: &Path, error: RecordError) -> TrainError {
    TrainError::Optimizer { path: path.into(), reason: error.to_string() }
}
