//! What can go wrong in training. Each error names the row, key or file at fault and says what to do.

use std::path::PathBuf;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting is outside its range.
    #[error("`{key}` = {value}: must be {expected}")]
    Setting {
        /// The key, as a recipe spells it.
        key: &'static str,
        /// Its value.
        value: String,
        /// The allowed values.
        expected: &'static str,
    },
    /// A reward function returned NaN or infinity.
    #[error("response {index} of its group has reward {value}; a reward must be a finite number")]
    NonFiniteReward {
        /// Position of the response in its group.
        index: usize,
        /// The value that the function returned.
        value: f64,
    },
    /// A recipe names a reward that is not registered.
    #[error("`tapo.rewards.{name}`: there is no reward of this name; use one of {known}")]
    UnknownReward {
        /// The unknown name.
        name: String,
        /// The names of the registered rewards, comma-separated.
        known: String,
    },
    /// The weight of a reward is negative or not finite.
    #[error("`tapo.rewards.{name}` = {weight}: must be a finite number, at least 0")]
    RewardWeight {
        /// The name of the reward.
        name: String,
        /// Its weight.
        weight: f64,
    },
    /// The group filter uses a reward that is not computed.
    #[error(
        "`tapo.filter.key` = {key}: this reward is not computed, only {names}; give it a weight in tapo.rewards (0 \
         only measures it)"
    )]
    FilterKey {
        /// The reward that the filter asks for.
        key: String,
        /// The names of the computed rewards, comma-separated.
        names: String,
    },
    /// A row's token ids and loss mask differ in length.
    #[error("row {row} has {ids} token ids, but its loss mask has {mask} entries; make them equally long")]
    MaskLength {
        /// Row of the batch.
        row: usize,
        /// Number of token ids.
        ids: usize,
        /// Number of mask entries.
        mask: usize,
    },
    /// The first token of a row is in the loss, but no token before it predicts it.
    #[error("row {row}: its first token is in the loss, but no token before it predicts it; mask it")]
    FirstTokenInLoss {
        /// Row of the batch.
        row: usize,
    },
    /// A row is shorter or longer than the first row of its batch.
    #[error("row {row} has {len} tokens, but row 0 has {expected}; pad the batch before packing it")]
    RaggedRow {
        /// Row of the batch.
        row: usize,
        /// Its length.
        len: usize,
        /// Length of row 0.
        expected: usize,
    },
    /// No token of the batch is in the loss.
    #[error("no token of the {rows} rows is in the loss; drop rows with an empty answer")]
    NoLossTokens {
        /// Rows in the batch.
        rows: usize,
    },
    /// There is nothing to train on.
    #[error("the training set has no rows; use a data file with at least one")]
    EmptySource,
    /// The optimiser's moments cannot be written or read.
    #[error("{}: the optimiser state cannot be saved or loaded: {reason}", path.display())]
    Optimizer {
        /// The file.
        path: PathBuf,
        /// The error that Burn reported.
        reason: String,
    },
    /// A saved state belongs to another run.
    #[error(
        "the saved run has {saved} {what}, but this run has {found}; continue it with the recipe and the data that it \
         was saved with"
    )]
    OtherRun {
        /// What differs: rows, updates or steps.
        what: &'static str,
        /// The number in the saved state.
        saved: usize,
        /// The number in this run.
        found: usize,
    },
    /// A run with a reference model continues without it.
    #[error(
        "`tapo.loss.kl_ref` is not 0, but the continued run has no reference model; set the model that the run started \
         from with `TapoTrainer::with_reference`"
    )]
    NoReference,
    /// Several updates in a row were skipped because their loss or gradient was not finite.
    #[error(
        "{count} updates in a row, up to update {update}, had a loss or gradient that is not finite (samples at fault: \
         {samples}); check these samples or lower the learning rate"
    )]
    Diverged {
        /// Number of updates skipped in a row.
        count: usize,
        /// Number of the last skipped update, from 1.
        update: usize,
        /// The samples at fault, comma-separated.
        samples: String,
    },
    /// In several rollout steps in a row, no group passed the filter.
    #[error(
        "no group passed the filter (tapo.filter) in {steps} rollout steps in a row, so nothing is learned: see the \
         responses in rollouts.jsonl. If all are wrong, train longer with sft, check rewards and answers, or sample more \
         per group; if all are right, use harder rows; or widen tapo.filter.low and tapo.filter.high"
    )]
    NoGroups {
        /// Number of steps in a row.
        steps: usize,
    },
    /// A sample cannot be made from its row.
    #[error("{row}: {reason}")]
    Sample {
        /// The file and the row.
        row: String,
        /// What is wrong with the row.
        reason: String,
    },
    /// A batch does not fit the model.
    #[error(transparent)]
    Processor(#[from] fieldmark_processor::ProcessorError),
    /// A callback returned an error when it received an event.
    #[error(transparent)]
    Callback(Box<dyn std::error::Error + Send + Sync>),
    /// Responses cannot be sampled.
    #[error(transparent)]
    Generate(#[from] fieldmark_generate::GenerateError),
}

impl TrainError {
    /// Wraps the error of a callback. Returned from the callback, it stops the training.
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
