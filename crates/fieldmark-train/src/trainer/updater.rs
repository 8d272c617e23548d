//! One optimiser update: clips the global gradient norm, makes the step, and counts skipped updates.

use std::path::Path;

use burn::{
    module::Module,
    optim::{GradientsParams, ModuleOptimizer},
    store::RecordError,
};
use fieldmark_model::{ModelPart, Qwen25Vl, TrainableParts};

use serde::{Deserialize, Serialize};

use crate::{
    TrainError,
    optim::{AdamWSettings, Clipped, GradClipper, LrSchedule, NOTHING, idle_parts},
};

/// Number of updates skipped in a row after which a run stops, because the problem will not go away by itself.
pub const MOST_SKIPPED_IN_A_ROW: usize = 3;

/// The result of an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Updated {
    /// Learning rate of the update.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// True if the parameters did not change because the loss or the norm was not finite.
    pub skipped: bool,
}

/// The counts of a run's updates. The optimiser's moments are saved in a file of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdaterState {
    /// Number of updates made, skipped ones included. Also the position in the learning rate schedule.
    pub done: usize,
    /// Number of skipped updates.
    pub skipped: usize,
    /// The parts that have had a gradient other than 0 in some update.
    #[serde(default = "nothing")]
    pub moved: TrainableParts,
}

impl Default for UpdaterState {
    fn default() -> Self {
        Self { done: 0, skipped: 0, moved: NOTHING }
    }
}

const fn nothing() -> TrainableParts {
    NOTHING
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
    /// Creates an updater for `total` updates of `model`.
    ///
    /// # Errors
    /// Returns an error if a setting is out of range.
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

    /// Sets the total number of updates, which the schedule depends on.
    pub fn with_total(mut self, total: usize) -> Self {
        self.total = total;
        self
    }

    /// Number of updates made so far, skipped ones included.
    pub fn done(&self) -> usize {
        self.state.done
    }

    /// Number of updates skipped so far.
    pub fn skipped(&self) -> usize {
        self.state.skipped
    }

    /// Number of updates skipped since the last one that was not skipped.
    pub fn skipped_in_a_row(&self) -> usize {
        self.skipped_in_a_row
    }

    /// Number of updates made and skipped so far.
    pub fn state(&self) -> UpdaterState {
        self.state
    }

    /// The learning rate of the next update.
    pub fn lr(&self) -> f64 {
        self.schedule.at(self.state.done, self.total)
    }

    /// Returns true if the learning rate is 0 in every update, so that no parameter ever changes.
    pub fn changes_nothing(&self) -> bool {
        self.schedule.lr == 0.0
    }

    /// Returns the parts of `model` that are trained and have had no gradient in any update, `grads` included, although
    /// others have. Call it before each update.
    pub(crate) fn idle_parts(&mut self, model: &Qwen25Vl, grads: &GradientsParams) -> Vec<ModelPart> {
        idle_parts(model, grads, &mut self.state.moved)
    }

    /// Updates `model` with `grads`, the gradients of `loss`. If either is not finite, the update is skipped and
    /// `model` does not change.
    pub fn step<M: Module>(&mut self, model: M, loss: f64, grads: GradientsParams) -> (M, Updated) {
        self.step_at(self.lr(), model, loss, grads)
    }

    /// Like [`Self::step`], but with the learning rate `lr` instead of the schedule's.
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

    /// Writes the optimiser's moments in Burn's format. They are stored by parameter id, so the model's ids must be
    /// [stable](crate::params::stable_param_ids).
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save_optimizer(&self, path: &Path) -> Result<(), TrainError> {
        self.optimizer.save(path).map_err(|error| optimizer(path, error))
    }

    /// Continues a saved run of the same settings: takes its counts from `state`, and its moments from the file that
    /// [`Self::save_optimizer`] wrote.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
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
