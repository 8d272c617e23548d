//! A question set: questions and where their photographs are.

use std::path::PathBuf;

use fieldmark_data::ImageRoots;

use crate::error::EvalError;
use crate::question::Question;

/// Questions whose photographs are in one place, such as those of one data file.
#[derive(Clone, Debug, Default)]
pub struct QuestionSet {
    /// The questions, in the order in which they are asked.
    pub questions: Vec<Question>,
    /// Where the questions' photographs are.
    pub images: ImageRoots,
}

impl QuestionSet {
    /// Creates a set.
    pub fn new(questions: Vec<Question>, images: ImageRoots) -> Self {
        Self { questions, images }
    }

    /// Returns the file of the photograph of each question, or `None` if it does not exist.
    pub fn photographs(&self) -> impl Iterator<Item = Option<PathBuf>> {
        self.questions.iter().map(|question| question.find_image(&self.images).ok())
    }

    /// Checks that every photograph exists, so that a long run does not stop halfway.
    ///
    /// # Errors
    /// Returns [`EvalError::ImageNotFound`] for the first question without its photograph.
    pub fn check_images(&self) -> Result<(), EvalError> {
        self.questions.iter().try_for_each(|question| question.find_image(&self.images).map(drop))
    }
}
