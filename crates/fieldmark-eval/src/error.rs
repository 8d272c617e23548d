//! What can go wrong in an evaluation: one error enum, each message names the file and row and says what to do.

use std::path::PathBuf;

use fieldmark_data::DataError;
use fieldmark_generate::GenerateError;
use fieldmark_processor::ProcessorError;

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
    /// The photograph of a question is not where it was looked for.
    #[error("{question}: image {image} not found under {}; correct the path or the image folder", folder.display())]
    ImageNotFound {
        /// Data set, split and row.
        question: String,
        /// The path in the row.
        image: String,
        /// The folder it was looked for in.
        folder: PathBuf,
    },
    /// The photograph of a question cannot be used.
    #[error("{question}: {source}")]
    Photo {
        /// Data set, split and row.
        question: String,
        /// What is wrong.
        source: ProcessorError,
    },
    /// A question cannot be turned into a prompt, or an output into text.
    #[error(transparent)]
    Processor(#[from] ProcessorError),
    /// Decoding failed; the message names the question.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}
