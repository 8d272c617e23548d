//! What can go wrong in an evaluation: one error enum, each message names the file and row and says what to do.

use std::path::PathBuf;

use fieldmark_data::DataError;

/// An error of an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A data or predictions file cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file cannot be written; nothing of it is left.
    #[error("{}: cannot be written: {source}; check the folder, its permissions and the space left", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A row of a predictions file is wrong.
    #[error("{}:{row}: {problem}; correct or remove the row, or run the evaluation again", file.display())]
    Prediction {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        row: usize,
        /// What is wrong.
        problem: String,
    },
    /// A closed-world question was asked of a row without options.
    #[error("{dataset} {split}, row {row}: no options; ask it in the open world or add options")]
    NoOptions {
        /// The data set.
        dataset: String,
        /// Its split.
        split: fieldmark_data::Split,
        /// The row in its file, from 1.
        row: usize,
    },
}
