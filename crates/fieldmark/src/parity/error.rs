//! Why a reference folder cannot be compared.

use std::{fmt::Display, path::Path};

/// What can stop a comparison before it starts.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// The folder is not in the form of the fixtures, or of a kind that is not implemented.
    #[error("{0}")]
    Folder(String),
    /// The model could not be built.
    #[error(transparent)]
    Model(#[from] fieldmark_model::ModelError),
    /// The processor could not read something.
    #[error(transparent)]
    Processor(#[from] fieldmark_processor::ProcessorError),
    /// Decoding failed.
    #[error(transparent)]
    Generate(#[from] fieldmark_generate::GenerateError),
    /// A training step failed.
    #[error(transparent)]
    Train(#[from] fieldmark_train::TrainError),
}

/// What is wrong with one item of a folder's file.
pub(super) fn in_file(folder: &Path, file: &str, item: &str, error: impl Display) -> ParityError {
    ParityError::Folder(format!("{}: {item}: {error}", folder.join(file).display()))
}
