//! The errors of an evaluation.

use std::path::PathBuf;

use fieldmark_data::DataError;
use fieldmark_generate::GenerateError;
use fieldmark_processor::ProcessorError;

/// An error of an evaluation; it names the file and row and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A data or predictions file cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file cannot be written.
    #[error("{}: cannot be written: {source}; check the folder, its permissions and the free space", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A row of a predictions file is invalid.
    #[error("{}:{row}: {problem}; correct or remove the row, or repeat the evaluation", file.display())]
    Prediction {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        row: usize,
        /// What is wrong.
        problem: String,
    },
    /// A predictions file has rows of two models, or of one model under two settings.
    #[error(
        "{}:{row}: `{key}` is {here}, but {first} in row {first_row}, so that the scores would be a mean over two \
         evaluations; write the rows of each into a file of its own", file.display()
    )]
    TwoRuns {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        row: usize,
        /// The setting.
        key: String,
        /// Its value in this row, as JSON.
        here: String,
        /// Its value in the first row, as JSON.
        first: String,
        /// The first row.
        first_row: usize,
    },
    /// A predictions file cannot be continued, because it has answers to other questions or of other settings.
    #[error(
        "{}:{row}: {problem}; the evaluation cannot go on with it. Use the settings that it was begun with, or start a \
         new evaluation in another folder", file.display()
    )]
    Other {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        row: usize,
        /// What differs.
        problem: String,
    },
    /// A row without options cannot become a closed-world question.
    #[error("{dataset} {split}, row {row}: no options; add options, or ask the row in the open world (eval.worlds)")]
    NoOptions {
        /// The data set.
        dataset: String,
        /// The split.
        split: fieldmark_data::Split,
        /// The row in the file, from 1.
        row: usize,
    },
    /// The photograph of a question was not found.
    #[error("{question}: image {image} not found under {}; correct the path or the image folder", folder.display())]
    ImageNotFound {
        /// Data set, split and row.
        question: String,
        /// The path in the row.
        image: String,
        /// The folder that was searched.
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
    /// A question cannot be turned into a prompt, or tokens into text.
    #[error(transparent)]
    Processor(#[from] ProcessorError),
    /// Decoding failed; the message names the question.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}
