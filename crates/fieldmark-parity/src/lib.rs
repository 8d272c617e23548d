//! `fieldmark parity DIR`: compares every tensor of a reference folder with Fieldmark's own result.
//!
//! A reference folder holds weights, inputs and the tensors that the reference implementation computed from them. The
//! report has one line per tensor. A tensor that Fieldmark does not know is reported as unknown.

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
use fieldmark_model::WeightType;

pub use compare::{Comparison, Report, Status, Tolerance};
pub use error::ParityError;
pub use fixture::Fixture;

/// Compares one reference folder of any kind. `tokenizer`, a `tokenizer.json` (plain or gzipped), is needed only to
/// compare the token ids of chats. `dtype` is the number format of the model's weights; folders without a model are
/// compared in f32. In 16 bits the bounds are wider, and generated tokens and weights after updates are not compared.
///
/// # Errors
/// Returns an error if the folder cannot be read or is not a reference folder.
pub fn parity(
    folder: &Path,
    tokenizer: Option<&Path>,
    dtype: WeightType,
    device: &Device,
) -> Result<Report, ParityError> {
    let has = |name: &str| folder.join(name).is_file();
    if has("config.json") && has("expected.safetensors") {
        qwen::compare(folder, dtype, device)
    } else if has("smart_resize.json") {
        images::compare(folder)
    } else if has("advantages.json") {
        tapo::compare(folder, device)
    } else if has("cases.json") {
        chat::compare(folder, tokenizer)
    } else {
        Err(ParityError::Folder(format!(
            "{}: not a reference folder; it needs config.json with expected.safetensors, or smart_resize.json, \
             advantages.json or cases.json",
            folder.display()
        )))
    }
}
