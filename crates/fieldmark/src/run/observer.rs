//! What a run tells while it goes on. A run prints nothing: whoever starts it decides what is shown.

use std::path::Path;

use fieldmark_train::{params::Trainable, trainer::TrainEvent};

use super::Course;
use crate::{error::RunError, folder::RunFolder};

/// Something that happened in a run.
#[non_exhaustive]
pub enum RunEvent<'a> {
    /// Something worth knowing that does not stop the run, such as a damaged checkpoint that is passed over.
    Note(&'a str),
    /// A part of a larger program begins, such as a stage of the demo.
    Stage(&'a str),
    /// Samples are being made once, to find damaged ones before training starts.
    Checked {
        /// Samples made.
        done: usize,
        /// Samples in all.
        total: usize,
    },
    /// Which parameters learn.
    Trainable(&'a [Trainable]),
    /// Training starts or continues here.
    Begin(Course),
    /// A step begins.
    Step(Course),
    /// The trainer reports. The timing of an update has what the device adds.
    Train(TrainEvent<'a>),
    /// A step has ended.
    Stepped(Course),
    /// A checkpoint was saved in this folder.
    Saved(&'a Path),
    /// The last step is made. The logs are complete; the trained model is saved next.
    Trained(&'a RunFolder),
    /// Evaluation questions are being answered.
    Answered {
        /// Questions answered.
        done: usize,
        /// Questions in all.
        total: usize,
    },
}

/// Is told what happens in a run. An error stops the run.
///
/// ```
/// use fieldmark::run::{Observer, RunEvent};
///
/// let mut steps = 0;
/// let mut count = |event: RunEvent<'_>| {
///     if let RunEvent::Stepped(course) = event {
///         steps = course.done;
///     }
///     Ok(())
/// };
/// count.event(RunEvent::Note("closures are observers"))?;
/// # Ok::<(), fieldmark::RunError>(())
/// ```
pub trait Observer {
    /// Takes an event.
    ///
    /// # Errors
    /// An error that must stop the run.
    fn event(&mut self, event: RunEvent<'_>) -> Result<(), RunError>;
}

impl<F: FnMut(RunEvent<'_>) -> Result<(), RunError>> Observer for F {
    fn event(&mut self, event: RunEvent<'_>) -> Result<(), RunError> {
        self(event)
    }
}

/// An observer that shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _event: RunEvent<'_>) -> Result<(), RunError> {
        Ok(())
    }
}
