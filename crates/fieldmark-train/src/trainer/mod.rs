//! The training loop of both stages. A [`Trainer`] makes one step after another, returns a [`Verdict`] after each, and
//! can be saved and restored between two steps. `Engine` holds the parts that both trainers share.

mod engine;
mod event;
mod finding;
mod interrupt;
mod mark;
mod progress;
mod streak;
mod timings;
mod updater;
mod verdict;

use std::ops::ControlFlow;

use fieldmark_model::Qwen25Vl;
use serde::{Serialize, de::DeserializeOwned};

use crate::TrainError;

pub(crate) use self::{engine::Engine, finding::idle_findings, progress::Sampled, streak::culprits};
pub use self::{
    event::{OnEvent, TrainEvent},
    finding::Finding,
    interrupt::Interrupt,
    mark::Mark,
    progress::Sampling,
    timings::{Decoding, DecodingTiming, UpdateTiming},
    updater::{MOST_SKIPPED_IN_A_ROW, Updated, Updater, UpdaterState},
    verdict::{Direction, Score, Verdict},
};

/// A stage of training. A step is an update of SFT or a rollout step of TAPO; a run can stop after each step.
///
/// ```no_run
/// # use fieldmark_model::Qwen25Vl;
/// use fieldmark_train::{TrainError, TrainEvent, Trainer};
///
/// fn loss_by_loss(trainer: &mut impl Trainer, model: Qwen25Vl) -> Result<Qwen25Vl, TrainError> {
///     trainer.train(model, |event| {
///         if let TrainEvent::SftUpdate(row, timing) = event {
///             println!("update {}: loss {:.4}, {:.0} tokens a second", row.step, row.loss, timing.tokens_per_second);
///         }
///         Ok(())
///     })
/// }
/// ```
pub trait Trainer {
    /// The trainer's state in a checkpoint, without the weights and the optimiser's moments.
    type State: Serialize + DeserializeOwned;

    /// Makes one step and reports its measurements to `on_event`. After the last step it does nothing.
    ///
    /// If the [interrupt](Self::interrupt) is set while responses are sampled or a validation set is scored, returns at
    /// once: the step is not made, or its validation is still to be made, and [`Self::state`] says so.
    ///
    /// If the verdict has a fault, the run must stop. The returned model and [`Self::state`] are then from before the
    /// skipped updates.
    ///
    /// # Errors
    /// Returns an error if a sample cannot be made or does not fit the model, or if `on_event` returns one.
    fn step(&mut self, model: Qwen25Vl, on_event: &mut OnEvent<'_>) -> Result<(Qwen25Vl, Verdict), TrainError>;

    /// Number of steps made.
    fn done(&self) -> usize;

    /// Number of steps of the whole run.
    fn total(&self) -> usize;

    /// Position of [`Self::state`] in the run.
    fn mark(&self) -> Mark;

    /// The state to save. If the last updates were skipped, this is the state before the first of them: skipped updates
    /// change neither the weights nor the moments, so both still belong to this state.
    fn state(&self) -> Self::State;

    /// The optimiser and its schedule.
    fn updater(&self) -> &Updater;

    /// The flag that stops [`Self::train`].
    fn interrupt(&self) -> &Interrupt;

    /// Returns true after the last step.
    fn is_finished(&self) -> bool {
        self.done() >= self.total()
    }

    /// Makes the remaining steps and calls `after` after each; `after` decides whether to continue. [`Self::train`]
    /// uses this loop, and so do runs that save checkpoints.
    ///
    /// # Errors
    /// Returns the errors of [`Self::step`] and of `after`.
    fn train_with<E: From<TrainError>>(
        &mut self,
        mut model: Qwen25Vl,
        on_event: &mut OnEvent<'_>,
        mut after: impl FnMut(&mut Self, &Qwen25Vl, Verdict) -> Result<ControlFlow<()>, E>,
    ) -> Result<Qwen25Vl, E> {
        while !self.is_finished() {
            let (next, verdict) = self.step(model, on_event)?;
            model = next;
            if after(self, &model, verdict)?.is_break() {
                break;
            }
        }
        Ok(model)
    }

    /// Makes the remaining steps. If the [interrupt](Self::interrupt) is set, returns after the current step, or at once
    /// if it is sampling responses.
    ///
    /// # Errors
    /// Returns the errors of [`Self::step`], or the fault of a verdict.
    fn train(
        &mut self,
        model: Qwen25Vl,
        mut on_event: impl FnMut(TrainEvent<'_>) -> Result<(), TrainError>,
    ) -> Result<Qwen25Vl, TrainError> {
        if self.interrupt().asked() {
            return Ok(model);
        }
        self.train_with(model, &mut on_event, |trainer, _, verdict| match verdict.fault {
            Some(fault) => Err(fault),
            None if trainer.interrupt().asked() => Ok(ControlFlow::Break(())),
            None => Ok(ControlFlow::Continue(())),
        })
    }
}
