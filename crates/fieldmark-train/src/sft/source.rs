//! The samples that SFT trains on.

use fieldmark_processor::SupervisedSequence;

use crate::TrainError;

/// Makes the samples of SFT. A source that crops or flips its images does so here, differently in each epoch.
pub trait SftSource {
    /// Number of rows in an epoch.
    fn len(&self) -> usize;

    /// Returns true if the source has no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the sample of `row` in `epoch`.
    ///
    /// # Errors
    /// Returns an error that names the row if it cannot be read.
    fn sample(&self, row: usize, epoch: usize) -> Result<SupervisedSequence, TrainError>;
}
