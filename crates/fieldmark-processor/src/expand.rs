//! Repeats the placeholder of each image once for each of its tokens.
//!
//! Reference: `Qwen2_5_VLProcessor.__call__` of transformers: each `<|image_pad|>` is repeated t·h·w/merge² times.

use fieldmark_model::GridThw;

use crate::{error::ProcessorError, text::special::IMAGE_PAD};

/// Repeats each placeholder of `text` as often as its image, in order, has tokens.
///
/// # Errors
/// Returns [`ProcessorError::Placeholders`], which names `sample`, if `text` has more or fewer placeholders than
/// images.
pub fn expand_images(sample: &str, text: &str, grids: &[GridThw], merge_size: usize) -> Result<String, ProcessorError> {
    let mut pieces = text.split(IMAGE_PAD);
    let mut expanded = String::from(pieces.next().unwrap_or_default());
    let pieces: Vec<&str> = pieces.collect();
    if pieces.len() != grids.len() {
        return Err(ProcessorError::Placeholders {
            sample: sample.into(),
            placeholders: pieces.len(),
            images: grids.len(),
        });
    }
    for (piece, grid) in pieces.into_iter().zip(grids) {
        expanded.push_str(&IMAGE_PAD.repeat(grid.tokens(merge_size)));
        expanded.push_str(piece);
    }
    Ok(expanded)
}
