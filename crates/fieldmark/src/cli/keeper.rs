//! The loop around a stage's steps: saves when it is time, keeps the newest few and the best, stops when asked to, and stops
//! with a checkpoint from before a fault that would not go away.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use fieldmark::{
    model::Qwen25Vl,
    recipe::RunSection,
    train::{Best, Checkpoints, Interrupt, Mark, TrainError, Updater},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::checkpoint::Checkpoint;

/// A trainer with its logs.
pub trait Stage {
    /// What the trainer is between two steps.
    type State: Serialize + DeserializeOwned;

    /// Makes one step and writes down what it measured.
    ///
    /// # Errors
    /// The trainer's and the logs'.
    fn step(&mut self, model: Qwen25Vl) -> Result<Qwen25Vl, TrainError>;

    /// Steps made.
    fn done(&self) -> usize;

    /// Whether the last step is made.
    fn is_finished(&self) -> bool;

    /// Why the run must stop, if it must.
    fn fault(&self) -> Option<TrainError>;

    /// What to save, and its place in the run.
    fn state(&self) -> (Mark, Self::State);

    /// Optimiser and schedule.
    fn updater(&self) -> &Updater;

    /// Whether a score is that of the model after the step, and not of the checkpoint before it.
    fn scores_itself(&self) -> bool;

    /// How good a checkpoint proved to be, where the last step has shown it.
    fn score(&self) -> Option<Best>;

    /// Whether a score is better than another.
    fn is_better(score: f64, than: f64) -> bool;

    /// Waits until the logs are on the disk.
    ///
    /// # Errors
    /// What the system says.
    fn sync(&self) -> Result<(), TrainError>;
}

/// How a loop ended.
pub enum End {
    /// At the last step, with the trained model.
    Finished(Box<Qwen25Vl>),
    /// Before it, by request; saved in this folder.
    Interrupted(PathBuf),
}

/// What `trainer/state.toml` holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved<T> {
    /// Which command it belongs to.
    stage: String,
    /// The checkpoint that the run started from, and what its weights were.
    start: Start,
    /// The best checkpoint so far.
    best: Option<Best>,
    /// The trainer.
    trainer: T,
}

/// The checkpoint that a run started from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Its folder.
    pub folder: PathBuf,
    /// SHA-256 of its weights, where the run needs them to the end: it trains adapters, or measures the distance from them.
    pub weights: Option<String>,
}

/// Saves a run.
pub struct Keeper<'a> {
    checkpoint: &'a Checkpoint,
    checkpoints: Checkpoints,
    settings: RunSection,
    stage: &'static str,
    start: Start,
    best: Option<Best>,
    /// The newest checkpoint that is known to be whole.
    newest: Option<Mark>,
}

impl<'a> Keeper<'a> {
    /// A keeper of a run that has not saved yet.
    pub fn new(
        checkpoint: &'a Checkpoint,
        checkpoints: Checkpoints,
        settings: RunSection,
        stage: &'static str,
        start: Start,
    ) -> Self {
        Self { checkpoint, checkpoints, settings, stage, start, best: None, newest: None }
    }

    /// Goes on from a checkpoint of the run, whose trainer's state it returns.
    ///
    /// # Errors
    /// If the state cannot be read, or the run started from other weights.
    pub fn go_on<T: DeserializeOwned>(&mut self, folder: &Path, mark: Mark) -> anyhow::Result<T> {
        let Saved { stage, start, best, trainer } = Checkpoints::state(folder)?;
        if stage != self.stage {
            bail!("{}: is of a run of `{stage}`, not of `{}`", folder.display(), self.stage);
        }
        if start.weights != self.start.weights {
            bail!(
                "{}: its weights are not those that the run started from; put them back, for the run needs them",
                self.start.folder.display()
            );
        }
        self.best = best;
        self.newest = Some(mark);
        self.checkpoints.remove_after(mark)?;
        self.rotate()?;
        Ok(trainer)
    }

    /// The best checkpoint so far, and its folder.
    pub fn best(&self) -> Option<(&Best, PathBuf)> {
        self.best.as_ref().map(|best| (best, self.checkpoints.path(best.mark)))
    }

    /// The folder with the weights of a checkpoint as they were computed in.
    pub fn weights(folder: &Path) -> PathBuf {
        let exact = folder.join(EXACT);
        if exact.is_dir() { exact } else { folder.into() }
    }

    /// Makes steps to the end, or until `interrupt` asks to stop.
    ///
    /// # Errors
    /// Those of the stage, and if something cannot be saved.
    pub fn train<S: Stage>(
        &mut self,
        mut model: Qwen25Vl,
        stage: &mut S,
        interrupt: &Interrupt,
    ) -> anyhow::Result<End> {
        while !stage.is_finished() {
            model = stage.step(model).map_err(|error| super::training::in_section(self.stage, error))?;
            let due = self.settings.save_every > 0 && stage.done().is_multiple_of(self.settings.save_every);
            let stop = interrupt.asked() && !stage.is_finished();
            let may_save = stage.scores_itself() && (self.settings.save_every > 0 || stop);
            let is_best = stage.score().is_some_and(|score| self.judge::<S>(score, may_save));
            if let Some(fault) = stage.fault() {
                let folder = self.save(&model, stage)?;
                bail!("{fault}; {} is from before them", folder.display());
            }
            if due || stop || (is_best && may_save) {
                let folder = self.save(&model, stage)?;
                if stop {
                    return Ok(End::Interrupted(folder));
                }
            }
        }
        Ok(End::Finished(Box::new(model)))
    }

    /// Only what has been saved, or will be now, can be the best. Returns whether it is.
    fn judge<S: Stage>(&mut self, score: Best, may_save: bool) -> bool {
        let better = self.best.as_ref().is_none_or(|best| S::is_better(score.value, best.value));
        let is_best = better && (may_save || self.newest == Some(score.mark));
        if is_best {
            self.best = Some(score);
        }
        is_best
    }

    fn save<S: Stage>(&mut self, model: &Qwen25Vl, stage: &S) -> anyhow::Result<PathBuf> {
        let (mark, trainer) = stage.state();
        if self.newest == Some(mark) {
            return Ok(self.checkpoints.path(mark));
        }
        stage.sync()?;
        let state = Saved { stage: self.stage.into(), start: self.start.clone(), best: self.best.clone(), trainer };
        let saved = self.checkpoints.save(mark, stage.updater(), &state, |folder| {
            self.checkpoint.fill(model, folder)?;
            self.checkpoint.fill_exactly(model, &folder.join(EXACT))
        });
        let folder = saved.map_err(|error: anyhow::Error| anyhow!("the checkpoint could not be saved: {error}"))?;
        self.newest = Some(mark);
        self.rotate()?;
        Ok(folder)
    }

    fn rotate(&self) -> Result<(), TrainError> {
        self.checkpoints.rotate(self.settings.keep, self.best.as_ref().map(|best| best.mark))
    }
}

/// Where a checkpoint has its weights as they were computed in, if those beside are rounded.
const EXACT: &str = "trainer/weights";
