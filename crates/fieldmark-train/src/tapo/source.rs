//! The samples that TAPO trains on.

use std::path::PathBuf;

use crate::{TrainError, tapo::rollout::TripletPrompt};

/// Makes the prompts of TAPO.
pub trait TripletSource: Sync {
    /// Number of samples in an epoch.
    fn len(&self) -> usize;

    /// Returns true if the source has no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the prompts of sample `row` in `epoch`. Every call must return the same: a resumed run makes the prompts
    /// of its waiting groups again.
    ///
    /// # Errors
    /// Returns an error that names the row if it cannot be read.
    fn prompt(&self, row: usize, epoch: usize) -> Result<TripletPrompt, TrainError>;

    /// Returns what the logs say about the sample of `prompt`. Sources without files can keep the default.
    fn facts(&self, prompt: &TripletPrompt) -> SampleFacts {
        let _ = prompt;
        SampleFacts::default()
    }
}

/// What the logs say about a sample besides its responses: its image files and the text of its prompt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SampleFacts {
    /// File of the anchor image.
    pub anchor: Option<PathBuf>,
    /// File of the positive image, if responses are sampled from it.
    pub positive: Option<PathBuf>,
    /// File of the negative image, if it is a photograph.
    pub negative: Option<PathBuf>,
    /// The user's turn, with `<image>` in place of the image.
    pub prompt: Option<String>,
}
