//! The events of a run. A run prints nothing: its observer decides what to show.

use std::path::Path;

use fieldmark_train::{params::Trainable, trainer::TrainEvent};

use super::Course;
use crate::{error::RunError, folder::RunFolder};

/// An event of a run.
#[non_exhaustive]
pub enum RunEvent<'a> {
    /// A note that does not stop the run, such as a damaged checkpoint that is skipped.
    Note(&'a str),
    /// A part of a larger program starts, such as a stage of the demo.
    Stage(&'a str),
    /// A sample was checked. Every sample is made once before training starts, to find damaged ones.
    Checked {
        /// Number of samples checked.
        done: usize,
        /// Number of samples.
        total: usize,
    },
    /// The parameters that are trained.
    Trainable(&'a [Trainable]),
    /// The first sample as the model reads it, before a new run starts: the text with its special tokens.
    Example {
        /// Name of the sample: file and row.
        name: &'a str,
        /// The prompt of TAPO, or the whole conversation of SFT. A run of equal tokens, such as those of an image, is
        /// one token and its count: `<|image_pad|>×12`.
        text: &'a str,
        /// Number of tokens.
        tokens: usize,
    },
    /// Training starts or continues from here.
    Begin(Course),
    /// A step starts.
    Step(Course),
    /// An event of the trainer. The timing of an update includes memory and utilisation of the device.
    Train(TrainEvent<'a>),
    /// A step has ended.
    Stepped(Course),
    /// A checkpoint was saved in this folder.
    Saved(&'a Path),
    /// The last step has ended. The logs are complete, and the trained model is saved next.
    Trained(&'a RunFolder),
    /// Species of a world were written.
    Written {
        /// Number of species written.
        done: usize,
        /// Number of species.
        total: usize,
    },
    /// Evaluation questions were answered.
    Answered {
        /// Number of questions answered.
        done: usize,
        /// Number of questions.
        total: usize,
    },
}

/// Receives the events of a run. A closure is an observer too.
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
    /// Receives an event.
    ///
    /// # Errors
    /// An error stops the run.
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
