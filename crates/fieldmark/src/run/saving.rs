//! Saves checkpoints of a run: every `save_every` steps, when the model is the best so far, when the run is stopped,
//! and when training cannot continue.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use fieldmark_model::Qwen25Vl;
use fieldmark_train::{
    Trainer,
    trainer::{Mark, Score, Verdict},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Stage,
    checkpoint::Checkpoint,
    error::RunError,
    folder::{Best, Checkpoints},
    recipe::RunSection,
};

/// The content of `trainer/state.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved<T> {
    /// The stage of the run.
    stage: String,
    /// The checkpoint that the run started from.
    start: Origin,
    /// The best checkpoint so far.
    best: Option<Best>,
    /// The state of the trainer.
    trainer: T,
}

/// The checkpoint that a run started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Origin {
    /// Folder of the checkpoint.
    pub(super) folder: PathBuf,
    /// SHA-256 of its weights, if a resumed run needs them again: for adapters or as the reference model.
    pub(super) weights: Option<String>,
}

/// Saves the checkpoints of a run.
pub(super) struct Saving<'a> {
    checkpoint: &'a Checkpoint,
    checkpoints: Checkpoints,
    settings: RunSection,
    stage: Stage,
    start: Origin,
    best: Option<Best>,
    /// The newest checkpoint that is known to be whole.
    newest: Option<Mark>,
    /// Position of the run before the current step.
    before: Option<Mark>,
    /// The checkpoint that was saved when the run was stopped.
    stopped: Option<PathBuf>,
}

impl<'a> Saving<'a> {
    /// Creates the saving of a run that has no checkpoint yet.
    pub(super) fn new(
        checkpoint: &'a Checkpoint,
        checkpoints: Checkpoints,
        settings: RunSection,
        stage: Stage,
        start: Origin,
    ) -> Self {
        Self { checkpoint, checkpoints, settings, stage, start, best: None, newest: None, before: None, stopped: None }
    }

    /// Continues from a checkpoint of the run and returns the trainer's state.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read, or if the run started from other weights.
    pub(super) fn restore<T: DeserializeOwned>(&mut self, folder: &Path, mark: Mark) -> Result<T, RunError> {
        let Saved { stage, start, best, trainer } = Checkpoints::state(folder)?;
        if stage != self.stage.section() {
            let problem = format!("is a checkpoint of a `{stage}` run, but this is a `{}` run", self.stage.section());
            return Err(RunError::path(folder, problem));
        }
        if start.weights != self.start.weights {
            let problem = "the weights changed since the run started, and the run still needs them; restore them";
            return Err(RunError::path(&self.start.folder, problem));
        }
        self.best = best;
        self.newest = Some(mark);
        self.checkpoints.remove_after(mark)?;
        self.rotate()?;
        Ok(trainer)
    }

    /// Returns the best checkpoint so far, and its folder.
    pub(super) fn best(&self) -> Option<(Best, PathBuf)> {
        self.best.as_ref().map(|best| (best.clone(), self.checkpoints.path(best.mark)))
    }

    /// Returns the folder of the checkpoint that was saved when the run was stopped.
    pub(super) fn stopped(&self) -> Option<&Path> {
        self.stopped.as_deref()
    }

    /// The stage that is saved.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// The folder of the newest checkpoint.
    pub(super) fn newest(&self) -> Option<PathBuf> {
        self.newest.map(|mark| self.checkpoints.path(mark))
    }

    /// Notes that a step of `trainer` starts.
    pub(super) fn begin(&mut self, trainer: &impl Trainer) {
        self.before = Some(trainer.mark());
    }

    /// Saves a checkpoint after a step if one is due, and returns whether the run continues. `sync` waits until the
    /// logs are on disk.
    ///
    /// # Errors
    /// Returns the verdict's fault, or an error if a checkpoint cannot be saved.
    pub(super) fn after(
        &mut self,
        trainer: &impl Trainer,
        model: &Qwen25Vl,
        verdict: Verdict,
        sync: &dyn Fn() -> Result<(), RunError>,
    ) -> Result<ControlFlow<()>, RunError> {
        let due = self.settings.save_every > 0 && trainer.done().is_multiple_of(self.settings.save_every);
        let stop = trainer.interrupt().asked() && !trainer.is_finished();
        let is_best = verdict.score.is_some_and(|score| {
            let is_new = self.before != Some(score.mark);
            let may_save = is_new && (self.settings.save_every > 0 || stop);
            self.judge(score, may_save) && may_save
        });
        if let Some(fault) = verdict.fault {
            let folder = self.save(trainer, model, sync)?;
            return Err(RunError::Fault { fault: Box::new(fault), folder });
        }
        if due || stop || is_best {
            let folder = self.save(trainer, model, sync)?;
            if stop {
                self.stopped = Some(folder);
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Returns true if this model is the best so far. Only a model that is saved, or may be saved now, can be the best.
    fn judge(&mut self, score: Score, may_save: bool) -> bool {
        let better = self.best.as_ref().is_none_or(|best| score.direction.is_better(score.value, best.value));
        let is_best = better && (may_save || self.newest == Some(score.mark));
        if is_best {
            self.best = Some(Best { metric: score.metric.into(), value: score.value, mark: score.mark });
        }
        is_best
    }

    fn save(
        &mut self,
        trainer: &impl Trainer,
        model: &Qwen25Vl,
        sync: &dyn Fn() -> Result<(), RunError>,
    ) -> Result<PathBuf, RunError> {
        let mark = trainer.mark();
        if self.newest == Some(mark) {
            return Ok(self.checkpoints.path(mark));
        }
        sync()?;
        let (stage, start) = (self.stage.section().into(), self.start.clone());
        let state = Saved { stage, start, best: self.best.clone(), trainer: trainer.state() };
        let saved = self.checkpoints.save(mark, trainer.updater(), &state, |folder| {
            self.checkpoint.fill(model, folder)?;
            self.checkpoint.fill_exactly(model, &Checkpoints::exact(folder))
        });
        let folder = saved.map_err(|error| RunError::Save(Box::new(error)))?;
        self.newest = Some(mark);
        self.rotate()?;
        Ok(folder)
    }

    fn rotate(&self) -> Result<(), RunError> {
        self.checkpoints.rotate(self.settings.keep, self.best.as_ref().map(|best| best.mark))
    }
}
