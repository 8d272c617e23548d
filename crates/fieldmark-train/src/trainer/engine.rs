//! The parts that both trainers share: workers, scorer, optimiser, the streak of skipped updates, and the interrupt.

use fieldmark_model::Qwen25Vl;

use super::{Interrupt, Updater, streak::Streak};
use crate::{
    TrainError,
    gradient::Scorer,
    optim::{AdamWSettings, LrSchedule},
    parallel::Replicas,
};

/// The shared parts of a trainer. `S` is the trainer's state.
pub(crate) struct Engine<S> {
    pub(crate) replicas: Replicas,
    pub(crate) scorer: Scorer,
    pub(crate) updater: Updater,
    pub(crate) streak: Streak<S>,
    pub(crate) interrupt: Interrupt,
}

impl<S> Engine<S> {
    /// Creates an engine for `total` updates of `model`.
    ///
    /// # Errors
    /// Returns an error if a setting is out of range.
    pub(crate) fn new(
        model: &Qwen25Vl,
        replicas: Replicas,
        scorer: Scorer,
        (adamw, schedule, max_grad_norm): (AdamWSettings, LrSchedule, f64),
        total: usize,
    ) -> Result<Self, TrainError> {
        Ok(Self {
            replicas,
            scorer,
            updater: Updater::new(model, adamw, schedule, max_grad_norm, total)?,
            streak: Streak::new(),
            interrupt: Interrupt::new(),
        })
    }

    /// Returns an error if the run must stop because too many updates in a row were skipped.
    pub(crate) fn fault(&self) -> Option<TrainError> {
        self.streak.fault(self.updater.skipped_in_a_row(), self.updater.done())
    }
}
