//! One optimiser update: clip the gradients' global norm, step, and count what had to be skipped.

use burn::{
    module::Module,
    optim::{GradientsParams, ModuleOptimizer},
};
use fieldmark_model::Qwen25Vl;

use crate::{AdamWSettings, Clipped, GradClipper, LrSchedule, TrainError};

/// What an update did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Updated {
    /// Learning rate used.
    pub lr: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Whether the parameters were left alone because the norm was not finite.
    pub skipped: bool,
}

/// Optimiser, clipping and schedule of one run.
pub struct Updater {
    optimizer: ModuleOptimizer,
    clipper: GradClipper,
    schedule: LrSchedule,
    total: usize,
    done: usize,
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
        Ok(Self { optimizer: adamw.init(model)?, clipper: GradClipper::new(max_grad_norm)?, schedule, total, done: 0 })
    }

    /// The same for another number of updates.
    pub fn with_total(mut self, total: usize) -> Self {
        self.total = total;
        self
    }

    /// Updates made so far, skipped ones included.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Updates skipped so far.
    pub fn skipped(&self) -> usize {
        self.clipper.skipped()
    }

    /// One update of `model` by `grads`.
    pub fn step<M: Module>(&mut self, model: M, grads: GradientsParams) -> (M, Updated) {
        let lr = self.schedule.at(self.done, self.total);
        self.done += 1;
        match self.clipper.clip(grads, &model) {
            Clipped::Ready { grads, norm } => {
                let model = self.optimizer.step(lr, model, grads);
                (model, Updated { lr, grad_norm: norm, skipped: false })
            }
            Clipped::Skipped { norm } => (model, Updated { lr, grad_norm: norm, skipped: true }),
        }
    }
}
