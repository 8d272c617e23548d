//! Pads or packs sequences into one batch on a device.
//!
//! Reference: the collator of transformers with `padding=True`. The positions of a sequence depend on its own images
//! only. A sequence that does not fit is an error; nothing is ever cut.

use std::sync::Arc;

use burn::tensor::Device;
use fieldmark_model::{GridThw, ModelError, ModelInputs, Padding, Qwen25VlConfig, Row, rope_positions};

use crate::{error::ProcessorError, image::PatchedImage, sequence::Sequence};

/// Pads `sequences` with `pad_id` into the inputs of a model: ids `[batch, seq]`, positions `[3, batch, seq]`, pixel
/// values `[patches, patch_len]` of all images. An image that several sequences share is in the batch once.
///
/// # Errors
/// - [`ProcessorError::Empty`] if there is no sequence, or a sequence has no token.
/// - [`ProcessorError::TooLong`] if a sequence has more than `max_tokens` tokens, or more than the model's context.
/// - [`ProcessorError::ImageTokens`] if image placeholders and image features disagree, patches do not fit the vision
///   encoder, or an id is outside the embedding.
///
/// The last two name the sample.
pub fn collate(
    sequences: &[Sequence],
    padding: Padding,
    pad_id: u32,
    max_tokens: Option<usize>,
    config: &Qwen25VlConfig,
    device: &Device,
) -> Result<ModelInputs, ProcessorError> {
    let context = config.text.max_position_embeddings;
    let limit = max_tokens.map_or(context, |tokens| tokens.min(context));
    for sequence in sequences {
        sequence.check_length(limit, config.vision_tokens.image)?;
    }
    inputs(sequences, &[], padding, pad_id, config, device)
}

/// Places `sequences` one after another in a single row, without padding. Each attends to itself and, if it has an index
/// in `after`, to all of that earlier sequence, which it continues: many responses can share one prompt.
///
/// # Errors
/// Returns the errors of [`collate`], where a sequence counts with the one it continues, and [`ModelError::Continuation`] if
/// it cannot continue that one.
pub fn pack(
    sequences: &[Sequence],
    after: &[Option<usize>],
    config: &Qwen25VlConfig,
    device: &Device,
) -> Result<ModelInputs, ProcessorError> {
    for (i, sequence) in sequences.iter().enumerate() {
        let before = after.get(i).copied().flatten().and_then(|before| sequences.get(before));
        sequence.check_length_after(before, config.text.max_position_embeddings, config.vision_tokens.image)?;
    }
    inputs(sequences, after, Padding::Packed, 0, config, device)
}

fn inputs(
    sequences: &[Sequence],
    after: &[Option<usize>],
    padding: Padding,
    pad_id: u32,
    config: &Qwen25VlConfig,
    device: &Device,
) -> Result<ModelInputs, ProcessorError> {
    if sequences.is_empty() || sequences.iter().any(|sequence| sequence.ids.is_empty()) {
        return Err(ProcessorError::Empty);
    }
    sequences.iter().try_for_each(|sequence| check_images(sequence, config))?;
    let mut images: Vec<&PatchedImage> = Vec::new();
    let shown: Vec<Vec<usize>> = sequences
        .iter()
        .map(|sequence| sequence.images.iter().map(|image| index_of(image, &mut images)).collect())
        .collect();
    let rows: Vec<Row<'_>> = sequences
        .iter()
        .zip(&shown)
        .enumerate()
        .map(|(i, (sequence, images))| Row { ids: &sequence.ids, images, after: after.get(i).copied().flatten() })
        .collect();
    let grids: Vec<GridThw> = images.iter().map(|image| image.grid).collect();
    let mut pixel_values = Vec::with_capacity(images.iter().map(|image| image.pixel_values.len()).sum());
    images.iter().for_each(|image| pixel_values.extend_from_slice(&image.pixel_values));
    Ok(ModelInputs::new(&rows, &grids, pixel_values, padding, pad_id, config, device)?)
}

/// The index of an image in the batch. Rows that share patches, such as the rollouts of a group, share the image, so
/// that it is encoded once.
fn index_of<'a>(image: &'a PatchedImage, images: &mut Vec<&'a PatchedImage>) -> usize {
    let same =
        |known: &&PatchedImage| Arc::ptr_eq(&known.pixel_values, &image.pixel_values) && known.grid == image.grid;
    images.iter().position(same).unwrap_or_else(|| {
        images.push(image);
        images.len() - 1
    })
}

fn check_images(sequence: &Sequence, config: &Qwen25VlConfig) -> Result<(), ProcessorError> {
    let refuse = |reason: String| Err(ProcessorError::ImageTokens { sample: sequence.name.clone(), reason });
    let (vision, merge) = (&config.vision, config.vision.spatial_merge_size);
    let grids = sequence.grids();
    let placeholders = sequence.ids.iter().filter(|&&id| id == config.vision_tokens.image).count();
    let features: usize = grids.iter().map(|grid| grid.tokens(merge)).sum();
    if placeholders != features {
        return refuse(format!(
            "the text has {placeholders} image placeholder tokens, but its {} image(s) give {features} features",
            grids.len()
        ));
    }
    for (i, image) in sequence.images.iter().enumerate() {
        let whole = image.grid.h.is_multiple_of(merge) && image.grid.w.is_multiple_of(merge);
        if !whole || image.pixel_values.len() != image.grid.patches() * vision.patch_len() {
            return refuse(format!(
                "image {i} has {} numbers in {}×{}×{} patches, but the vision encoder takes patches of {} numbers, \
                 merged {merge}×{merge}; make preprocessor_config.json agree with config.json",
                image.pixel_values.len(),
                image.grid.t,
                image.grid.h,
                image.grid.w,
                vision.patch_len(),
            ));
        }
    }
    if let Some(id) = sequence.ids.iter().find(|&&id| id as usize >= config.text.vocab_size) {
        return refuse(format!(
            "token id {id} is outside the embedding of {} rows; use the tokenizer that belongs to the model",
            config.text.vocab_size
        ));
    }
    // The total may be right although no run of placeholders has the length of its image.
    match rope_positions(&sequence.ids, &grids, &config.vision_tokens, merge) {
        Ok(_) => Ok(()),
        Err(ModelError::Placeholders { reason, .. }) => refuse(reason),
        Err(error) => Err(error.into()),
    }
}
