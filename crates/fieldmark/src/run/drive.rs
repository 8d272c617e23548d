//! Makes the steps of a run, passes the trainer's events to the logs and to the observer, and saves the run when it is
//! due.

use std::{cell::RefCell, ops::ControlFlow, path::PathBuf};

use fieldmark_model::Qwen25Vl;
use fieldmark_train::{TrainError, Trainer, trainer::TrainEvent};

use super::{Course, Observer, RunEvent, saving::Saving};
use crate::{error::RunError, log::RunLog};

/// The receivers of a run's events: its logs and its observer.
pub(super) struct Watch<'a, 'b> {
    pub(super) log: RunLog<'b>,
    pub(super) observer: &'a mut dyn Observer,
    pub(super) course: Course,
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

/// Makes the remaining steps, or fewer if the run is stopped.
///
/// # Errors
/// Returns the errors of the trainer, the logs and the observer, or an error if a checkpoint cannot be saved.
pub(super) fn drive<T: Trainer>(
    trainer: &mut T,
    model: Qwen25Vl,
    saving: &mut Saving<'_>,
    watch: &mut Watch<'_, '_>,
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
            watch.observer.event(RunEvent::Saved(&folder))?;
        }
        if flow == ControlFlow::Continue(()) && !trainer.is_finished() {
            watch.step(trainer.done())?;
            saving.begin(trainer);
        }
        Ok(flow)
    })
}
