//! The errors of a comparison.

use std::{fmt::Display, path::Path};

/// An error that ends a comparison.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// The folder is not a valid reference folder.
    #[error("{0}")]
    Folder(String),
    /// The model cannot be built.
    #[error(transparent)]
    Model(#[from] fieldmark_model::ModelError),
    /// The processor cannot read a file or image.
    #[error(transparent)]
    Processor(#[from] fieldmark_processor::ProcessorError),
    /// Responses cannot be generated.
    #[error(transparent)]
    Generate(#[from] fieldmark_generate::GenerateError),
    /// A training step cannot be computed.
    #[error(transparent)]
    Train(#[from] fieldmark_train::TrainError),
}

/// Creates an error about one item of a file in the folder.
pub(super) fn in_file(folder: &Path, file: &str, item: &str, error: impl Display) -> ParityError {
    ParityError::Folder(format!("{}: {item}: {error}", folder.join(file).display()))
}
