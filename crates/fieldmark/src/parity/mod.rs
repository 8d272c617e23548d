//! `fieldmark parity DIR`: every tensor of a reference folder against ours, one line each.
//!
//! A folder in the form of the reference fixtures holds weights, inputs and expected tensors. Whatever is in it is compared
//! and whatever is not known is said to be so: nothing is passed over in silence.

mod chat;
mod compare;
mod error;
mod fixture;
mod generation;
mod images;
mod json;
mod qwen;
mod rows;
mod tapo;
mod training;

use std::path::Path;

use burn::tensor::Device;

pub use compare::{Comparison, Report, Status, Tolerance};
pub use error::ParityError;
pub use fixture::Fixture;

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
