//! `fieldmark parity DIR`: every tensor of a reference folder against ours, one line each.
//!
//! A folder in the form of the reference fixtures holds weights, inputs and expected tensors. Whatever is in it is compared
//! and whatever is not known is said to be so: nothing is passed over in silence.

mod chat;
mod compare;
mod fixture;
mod generation;
mod images;
mod qwen;
mod tapo;
mod training;

use std::path::Path;

use burn::tensor::Device;

pub use compare::{Comparison, Report, Status, Tolerance};
pub use fixture::Fixture;

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
fn in_file(folder: &Path, file: &str, item: &str, error: impl std::fmt::Display) -> ParityError {
    ParityError::Folder(format!("{}: {item}: {error}", folder.join(file).display()))
}

/// Compares one folder, whatever kind it is. `tokenizer`, a `tokenizer.json` as it is or gzipped, is
/// needed only for the token ids of chats.
///
/// # Errors
/// If the folder cannot be read or is of a kind that Fieldmark does not implement.
pub fn parity(folder: &Path, tokenizer: Option<&Path>, device: &Device) -> Result<Report, ParityError> {
    let has = |name: &str| folder.join(name).is_file();
    if has("config.json") && has("expected.safetensors") {
        qwen::compare(folder, device)
    } else if has("smart_resize.json") {
        images::compare(folder)
    } else if has("advantages.json") {
        tapo::compare(folder, device)
    } else if has("cases.json") {
        chat::compare(folder, tokenizer)
    } else {
        Err(ParityError::Folder(format!(
            "{}: not a reference folder: expected config.json with expected.safetensors, smart_resize.json, \
             advantages.json or cases.json",
            folder.display()
        )))
    }
}
