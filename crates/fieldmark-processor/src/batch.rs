//! Sequences to one padded batch on a device.
//!
//! Reference: the collator of transformers with `padding=True`; positions are built for each sequence from its own
//! images. Whatever does not fit is refused by name: nothing is cut, least of all inside an image.

use std::sync::Arc;

use burn::tensor::Device;
use fieldmark_model::{GridThw, ModelError, ModelInputs, Padding, Qwen25VlConfig, Row, rope_positions};

use crate::{error::ProcessorError, image::PatchedImage, sequence::Sequence};

/// Pads `sequences` with `pad_id` into the inputs of a model: ids `[batch, seq]`, positions `[3, batch, seq]`, pixel
/// values `[patches, patch_len]` of all images, one that several sequences show only once.
///
/// # Errors
/// [`ProcessorError::Empty`] without a token to batch; [`ProcessorError::TooLong`] for a sequence of more than
/// `max_tokens` (at most the model's context); [`ProcessorError::ImageTokens`] where image placeholders and image
/// features disagree, patches do not fit the vision encoder or an id is outside the embedding. All name the sample.
pub fn collate(
    sequences: &[Sequence],
    padding: Padding,
    pad_id: u32,
    max_tokens: Option<usize>,
    config: &Qwen25VlConfig,
    device: &Device,
) -> Result<ModelInputs, ProcessorError> {
    if sequences.is_empty() || sequences.iter().any(|sequence| sequence.ids.is_empty()) {
        return Err(ProcessorError::Empty);
    }
    let context = config.text.max_position_embeddings;
    let limit = max_tokens.map_or(context, |tokens| tokens.min(context));
    for sequence in sequences {
        sequence.check_length(limit, config.vision_tokens.image)?;
        check_images(sequence, config)?;
    }
    let mut images: Vec<&PatchedImage> = Vec::new();
    let shown: Vec<Vec<usize>> = sequences
        .iter()
        .map(|sequence| sequence.images.iter().map(|image| index_of(image, &mut images)).collect())
        .collect();
    let rows: Vec<Row<'_>> =
        sequences.iter().zip(&shown).map(|(sequence, images)| Row { ids: &sequence.ids, images }).collect();
    let grids: Vec<GridThw> = images.iter().map(|image| image.grid).collect();
    let mut pixel_values = Vec::with_capacity(images.iter().map(|image| image.pixel_values.len()).sum());
    images.iter().for_each(|image| pixel_values.extend_from_slice(&image.pixel_values));
    Ok(ModelInputs::new(&rows, &grids, pixel_values, padding, pad_id, config, device)?)
}

/// Place of an image among those of the batch. Rows that share patches, as the rollouts of a group do, share the image,
/// so that it is encoded once.
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
            "{placeholders} image placeholder tokens, but its {} image(s) give {features} features",
            grids.len()
        ));
    }
    for (i, image) in sequence.images.iter().enumerate() {
        let whole = image.grid.h.is_multiple_of(merge) && image.grid.w.is_multiple_of(merge);
        if !whole || image.pixel_values.len() != image.grid.patches() * vision.patch_len() {
            return refuse(format!(
                "image {i}: {} numbers in {}×{}×{} patches do not fit patches of {} numbers merged {merge}×{merge}; \
                 preprocessor_config.json and config.json disagree",
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
            "token id {id} is outside the embedding of {} rows; the tokenizer belongs to another model",
            config.text.vocab_size
        ));
    }
    // Two runs may have the right sum and still belong to no image each.
    match rope_positions(&sequence.ids, &grids, &config.vision_tokens, merge) {
        Ok(_) => Ok(()),
        Err(ModelError::Placeholders { reason, .. }) => refuse(reason),
        Err(error) => Err(error.into()),
    }
}
