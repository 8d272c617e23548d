//! Where SFT gets its samples from.

use fieldmark_processor::SupervisedSequence;

use crate::TrainError;

/// Makes the sample of a row in an epoch: where a training set crops or flips its images, it does so here.
pub trait SftSource {
    /// Rows in an epoch.
    fn len(&self) -> usize;

    /// Whether there is nothing to train on.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `row` as it looks in `epoch`.
    ///
    /// # Errors
    /// If the row cannot be read; the row is named.
    fn sample(&self, row: usize, epoch: usize) -> Result<SupervisedSequence, TrainError>;
}
