//! Where TAPO gets its samples from.

use std::path::PathBuf;

use crate::{TrainError, tapo::rollout::TripletPrompt};

/// Makes the prompts of a sample in an epoch.
pub trait TripletSource: Sync {
    /// Samples in an epoch.
    fn len(&self) -> usize;

    /// Whether there is nothing to train on.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sample `row` as it looks in `epoch`, the same at every call: a resumed run makes the prompts of groups that wait again.
    ///
    /// # Errors
    /// If the row cannot be read; the row is named.
    fn prompt(&self, row: usize, epoch: usize) -> Result<TripletPrompt, TrainError>;

    /// What a log says of the sample that `prompt` was made from. Sources without files need not answer.
    fn facts(&self, prompt: &TripletPrompt) -> SampleFacts {
        let _ = prompt;
        SampleFacts::default()
    }
}

/// What a log says of a sample besides its responses: where its images are, and the wording of its prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SampleFacts {
    /// File of the anchor.
    pub anchor: Option<PathBuf>,
    /// File of the positive, if responses are sampled from it.
    pub positive: Option<PathBuf>,
    /// File of the negative, if it is a photograph.
    pub negative: Option<PathBuf>,
    /// The user's turn, with `<image>` in it.
    pub prompt: Option<String>,
}
