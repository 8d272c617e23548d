//! What can go wrong in training, each with the row, key or file it concerns and what to do.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting is outside its range.
    #[error("`{key}` = {value}: must be {expected}")]
    Setting {
        /// Key as it stands in a recipe.
        key: &'static str,
        /// The value given.
        value: String,
        /// The values allowed.
        expected: &'static str,
    },
    /// A reward function returned NaN or infinity.
    #[error("response {index} of its group has reward {value}: a reward must be a finite number")]
    NonFiniteReward {
        /// Position of the response in its group.
        index: usize,
        /// The reward returned.
        value: f64,
    },
    /// A recipe asks for a reward that is not there.
    #[error("`tapo.rewards.{name}`: no such reward; there are {known}")]
    UnknownReward {
        /// The name.
        name: String,
        /// Names of those that are there.
        known: String,
    },
    /// A reward's weight makes no sum.
    #[error("`tapo.rewards.{name}` = {weight}: must be a number of at least 0")]
    RewardWeight {
        /// The reward.
        name: String,
        /// Its weight.
        weight: f64,
    },
    /// The group filter looks at a reward that is not computed.
    #[error(
        "`tapo.filter.key` = {key}: not among the rewards ({names}); give it a weight in tapo.rewards, 0 to only measure it"
    )]
    FilterKey {
        /// The key.
        key: String,
        /// Names of the rewards that are computed.
        names: String,
    },
    /// A row's token ids and loss mask differ in length.
    #[error("row {row} has {ids} token ids and a loss mask of {mask}: they must be equally long")]
    MaskLength {
        /// Row of the batch.
        row: usize,
        /// Number of token ids.
        ids: usize,
        /// Number of mask entries.
        mask: usize,
    },
    /// The first token of a row is in the loss, but nothing stands before it to predict it.
    #[error("row {row} has its first token in the loss: mask it, nothing predicts it")]
    FirstTokenInLoss {
        /// Row of the batch.
        row: usize,
    },
    /// A row is shorter or longer than the batch's first.
    #[error("row {row} has {len} tokens, row 0 has {expected}: pad the batch before packing it")]
    RaggedRow {
        /// Row of the batch.
        row: usize,
        /// Its length.
        len: usize,
        /// Length of row 0.
        expected: usize,
    },
    /// No token of the batch is in the loss.
    #[error("no token of the {rows} rows is in the loss: drop rows with an empty answer")]
    NoLossTokens {
        /// Rows in the batch.
        rows: usize,
    },
    /// There is nothing to train on.
    #[error("the training set has no rows: name a data file that has at least one")]
    EmptySource,
    /// An optimiser's moments cannot be written or read.
    #[error("{}: optimiser state: {reason}", path.display())]
    Optimizer {
        /// The file.
        path: PathBuf,
        /// What Burn said.
        reason: String,
    },
    /// A saved state belongs to another run.
    #[error(
        "the saved run has {what} {saved}, this one {found}: continue with the recipe and the data it was saved with"
    )]
    OtherRun {
        /// What differs.
        what: &'static str,
        /// Its value in the saved state.
        saved: usize,
        /// Its value here.
        found: usize,
    },
    /// A run with a reference model is continued without it.
    #[error("`kl_ref` is not 0 and the run goes on: give the model it started from as the reference")]
    NoReference,
    /// Several updates one after another could not be made.
    #[error(
        "{count} updates in a row, the last of them number {update}, had a loss or gradient that is not finite (from: \
         {samples}): look at these samples, or lower the learning rate"
    )]
    Diverged {
        /// Updates skipped in a row.
        count: usize,
        /// The last of them, from 1.
        update: usize,
        /// The samples named, comma-separated.
        samples: String,
    },
    /// A sample cannot be made from its row.
    #[error("{row}: {reason}")]
    Sample {
        /// Which row of which file.
        row: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A batch does not fit the model.
    #[error(transparent)]
    Processor(#[from] fieldmark_processor::ProcessorError),
    /// A callback that receives events returned an error.
    #[error(transparent)]
    Callback(Box<dyn std::error::Error + Send + Sync>),
    /// Rollouts failed.
    #[error(transparent)]
    Generate(#[from] fieldmark_generate::GenerateError),
}

impl TrainError {
    /// Wraps an error of a callback that receives events, so that it stops the training.
    ///
    /// ```
    /// use fieldmark_train::TrainError;
    /// let full = std::io::Error::other("the disk is full");
    /// assert_eq!(TrainError::callback(full).to_string(), "the disk is full");
    /// ```
    pub fn callback(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Callback(Box::new(error))
    }
}
