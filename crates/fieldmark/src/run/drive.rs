//! Makes the steps of a run, passes the trainer's events to the logs and to the observer, and saves the run when it is
//! due.

use std::{cell::RefCell, ops::ControlFlow, path::PathBuf};

use fieldmark_model::Qwen25Vl;
use fieldmark_processor::Sequence;
use fieldmark_train::{TrainError, TrainEvent, Trainer, params::Trainable};

use super::{Course, Finished, Observer, Outcome, RunEvent, RunSetup, example, saving::Saving};
use crate::{
    checkpoint::Checkpoint,
    error::RunError,
    folder::{Lock, Replaced},
    log::{LogEnd, RunLog},
    recipe::Recipe,
};

/// What a run writes to and tells while it trains.
struct Watch<'a, 'b> {
    log: RunLog<'b>,
    observer: &'a mut dyn Observer,
    course: Course,
}

impl Watch<'_, '_> {
    fn step(&mut self, done: usize) -> Result<(), RunError> {
        self.course = self.course.after(done, 0);
        self.observer.event(RunEvent::Step(self.course))
    }

    fn event(&mut self, event: TrainEvent<'_>) -> Result<(), RunError> {
        match event {
            TrainEvent::SftUpdate(row, timing) => {
                let timing = self.log.on_device(timing);
                self.write(TrainEvent::SftUpdate(row, &timing))
            }
            TrainEvent::TapoUpdate(row, timing) => {
                let timing = self.log.on_device(timing);
                self.write(TrainEvent::TapoUpdate(row, &timing))
            }
            other => self.write(other),
        }
    }

    fn write(&mut self, event: TrainEvent<'_>) -> Result<(), RunError> {
        self.log.write(event, self.course.done + 1)?;
        self.observer.event(RunEvent::Train(event))
    }
}

/// A run whose trainer is ready.
pub(super) struct Ready<'a> {
    pub(super) setup: &'a RunSetup,
    /// How the trained model is saved.
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) saving: Saving<'a>,
    pub(super) course: Course,
    /// Where the logs of a run that continues end.
    pub(super) end: Option<LogEnd>,
    /// The folder's lock, if the folder existed.
    pub(super) lock: Option<Lock>,
    /// Rows that it trains on.
    pub(super) rows: usize,
    /// The first sample, to be shown, if the run is new.
    pub(super) example: Option<Sequence>,
}

impl Ready<'_> {
    /// Starts the folder and the logs, makes the remaining steps, and saves the trained model. `with_logs` adds the stage's own
    /// logs.
    ///
    /// # Errors
    /// Returns the errors of the trainer, the logs and the observer, and an error if something cannot be saved.
    pub(super) fn run<'b, T: Trainer>(
        mut self,
        trainer: &mut T,
        model: Qwen25Vl,
        learning: &[Trainable],
        with_logs: impl FnOnce(RunLog<'b>, Option<LogEnd>) -> Result<RunLog<'b>, RunError>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, RunError> {
        let (setup, stage) = (self.setup, self.saving.stage());
        let (_lock, mut replaced) = setup.start(self.lock.take())?;
        if let Some(sample) = &self.example {
            example::show(sample, &self.checkpoint.processor.tokenizer, observer)?;
        }
        if trainer.updater().changes_nothing() {
            let note = format!(
                "`{}` = 0: no parameter will change; the run saves the model that it starts from",
                Recipe::key_of(stage.section(), "lr")
            );
            observer.event(RunEvent::Note(&note))?;
        }
        observer.event(RunEvent::Trainable(learning))?;
        observer.event(RunEvent::Begin(self.course))?;
        let device = setup.split_devices().0;
        let log = RunLog::open(&setup.folder, stage, setup.log_settings(), &device, self.end)?;
        let mut watch = Watch { log: with_logs(log, self.end)?, observer, course: self.course };
        let before = self.saving.newest();
        let trained = steps(trainer, model, &mut self.saving, &mut watch, &mut replaced);
        if trained.is_err() && self.saving.newest() != before {
            // A run that could not go on has saved its last state. Neither that nor what it was to replace is lost.
            replaced.leave();
        }
        let model = trained.map_err(|error| error.in_section(stage))?;
        if let Some(saved) = self.saving.stopped() {
            let (done, total) = (trainer.done(), trainer.total());
            return Ok(Outcome::Stopped { done, total, saved: saved.into() });
        }
        // The model first: whoever is told next may draw a curve from logs that are gone.
        let checkpoint = self.checkpoint.save_in(&model, &setup.folder)?;
        replaced.settle(true)?;
        watch.observer.event(RunEvent::Trained(&setup.folder))?;
        let (steps, new_steps) = (Some(trainer.total()), trainer.done() - self.course.done);
        let best = self.saving.best();
        Ok(Outcome::Finished(Finished { checkpoint, steps, new_steps, rows: self.rows, best }))
    }
}

/// Makes the remaining steps, or those until the run is stopped.
///
/// # Errors
/// Returns the errors of the trainer, the logs and the observer, and an error if something cannot be saved.
fn steps<T: Trainer>(
    trainer: &mut T,
    model: Qwen25Vl,
    saving: &mut Saving<'_>,
    watch: &mut Watch<'_, '_>,
    replaced: &mut Replaced,
) -> Result<Qwen25Vl, RunError> {
    if !trainer.is_finished() {
        watch.step(trainer.done())?;
        saving.begin(trainer);
    }
    let watch = RefCell::new(watch);
    let mut on_event = |event: TrainEvent<'_>| watch.borrow_mut().event(event).map_err(TrainError::callback);
    trainer.train_with(model, &mut on_event, |trainer, model, verdict| {
        let mut watch = watch.borrow_mut();
        let course = watch.course.after(trainer.done(), 0);
        watch.observer.event(RunEvent::Stepped(course))?;
        let known: Option<PathBuf> = saving.newest();
        let flow = saving.after(trainer, model, verdict, &|| watch.log.sync())?;
        if let Some(folder) = saving.newest().filter(|folder| known.as_ref() != Some(folder)) {
            replaced.settle(false)?;
            watch.observer.event(RunEvent::Saved(&folder))?;
        }
        if flow == ControlFlow::Continue(()) && !trainer.is_finished() {
            watch.step(trainer.done())?;
            saving.begin(trainer);
        }
        Ok(flow)
    })
}
