//! The inputs of a forward pass: a padded or packed batch of token ids with rope positions, and its images.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::{
    attention::{AttentionLayout, AttentionMask},
    config::Qwen25VlConfig,
    error::ModelError,
    grid::GridThw,
    positions::{RopePosition, TokenIndex, rope_positions},
};

/// How rows of different lengths become one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Pads before the text, for generation: all rows must end together.
    Left,
    /// Pads after the text, for training.
    Right,
    /// Does not pad: all sequences share a single row of the batch, and each attends only to itself.
    Packed,
}

/// The images of a batch, in order of appearance.
#[derive(Debug, Clone)]
pub struct ImageInputs {
    /// Normalised patches of all images, `[patches, patch_len]`.
    pub pixel_values: Tensor<2>,
    /// Size of each image in patches.
    pub grids: Vec<GridThw>,
}

/// A batch of sequences.
#[derive(Debug, Clone)]
pub struct ModelInputs {
    /// Token ids, `[batch, seq]`.
    pub input_ids: Tensor<2, Int>,
    /// Rope positions, `[3, batch, seq]`, 0 at padding.
    pub position_ids: Tensor<3, Int>,
    /// Range of the real tokens in each row or, in a packed batch, range of each sequence.
    pub rows: Vec<Range<usize>>,
    /// In a packed batch, the sequence that each sequence continues ([`Row::after`]).
    pub after: Vec<Option<usize>>,
    /// Rope position of the next token of each row.
    pub next_position: Vec<RopePosition>,
    /// Flat index (row · seq + column) of every image token, row by row.
    pub image_index: Vec<usize>,
    /// For each image token, its row in the encoder's output. An image shared by several rows is encoded once.
    pub image_features: Vec<usize>,
    /// The images; `None` for a batch without images.
    pub images: Option<ImageInputs>,
}

/// One row before padding.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Token ids, with every image already expanded to its tokens.
    pub ids: &'a [u32],
    /// The images in the row, in order, as indices into the images of the batch. Rows may share images.
    pub images: &'a [usize],
    /// The index of an earlier row that this one continues: its tokens see that row's, and its positions follow. Many
    /// rows may continue one, so the responses to a prompt share it. Only in a packed batch.
    pub after: Option<usize>,
}

impl<'a> Row<'a> {
    /// Returns a row that continues no other.
    pub fn new(ids: &'a [u32], images: &'a [usize]) -> Self {
        Self { ids, images, after: None }
    }

    /// Returns this row as one that continues row `before`.
    #[must_use]
    pub fn continuing(self, before: usize) -> Self {
        Self { after: Some(before), ..self }
    }
}

impl ModelInputs {
    /// Pads or packs `rows` and computes their positions. `grids` are the sizes of the batch's images, and
    /// `pixel_values` are their patches, `[patches, patch_len]`, image by image; both are empty for a batch without
    /// images. Images may differ in size, within a row and between rows.
    ///
    /// # Errors
    /// - [`ModelError::Placeholders`] with the row (from 0) whose image tokens do not match its images.
    /// - [`ModelError::Continuation`] with the row that continues another in a padded batch, or a later row, or one that
    ///   continues a row itself.
    pub fn new(
        rows: &[Row<'_>],
        grids: &[GridThw],
        pixel_values: Vec<f32>,
        padding: Padding,
        pad_id: u32,
        config: &Qwen25VlConfig,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let (batch, seq) = match padding {
            Padding::Packed => (1, rows.iter().map(|row| row.ids.len()).sum()),
            _ => (rows.len(), rows.iter().map(|row| row.ids.len()).max().unwrap_or(0)),
        };
        let merge = config.vision.spatial_merge_size;
        let mut ids = vec![i64::from(pad_id); batch * seq];
        let mut positions = vec![0i64; 3 * batch * seq];
        let mut ranges = Vec::with_capacity(batch);
        let mut next_position = Vec::with_capacity(batch);
        let (mut image_index, mut image_features) = (Vec::new(), Vec::new());
        let (mut first_feature, mut packed) = (vec![0], 0);
        for grid in grids {
            first_feature.push(first_feature[first_feature.len() - 1] + grid.tokens(merge));
        }
        for (b, row) in rows.iter().enumerate() {
            let begun = match row.after {
                None => RopePosition(0),
                Some(before) => {
                    let whole = padding == Padding::Packed && before < b && rows[before].after.is_none();
                    if !whole {
                        return Err(ModelError::Continuation { row: b, before });
                    }
                    next_position[before]
                }
            };
            if let Some(image) = row.images.iter().find(|&&image| image >= grids.len()) {
                return Err(ModelError::Placeholders {
                    sample: format!("sample {b}"),
                    reason: format!("refers to image {image}, but the batch has only {} images", grids.len()),
                });
            }
            let own: Vec<GridThw> = row.images.iter().map(|&image| grids[image]).collect();
            image_features.extend(row.images.iter().flat_map(|&image| first_feature[image]..first_feature[image + 1]));
            let found = rope_positions(row.ids, &own, &config.vision_tokens, merge).map_err(|error| match error {
                ModelError::Placeholders { reason, .. } => {
                    ModelError::Placeholders { sample: format!("sample {b}"), reason }
                }
                other => other,
            })?;
            // Start of the row within its columns, and among all tokens of the batch.
            let (start, first) = match padding {
                Padding::Left => (seq - row.ids.len(), b * seq + seq - row.ids.len()),
                Padding::Right => (0, b * seq),
                Padding::Packed => (packed, packed),
            };
            packed += row.ids.len();
            for (i, &id) in row.ids.iter().enumerate() {
                let flat = first + i;
                ids[flat] = i64::from(id);
                for (axis, position) in found.at(TokenIndex(i)).into_iter().enumerate() {
                    positions[axis * batch * seq + flat] = (begun + position.0).0 as i64;
                }
                if id == config.vision_tokens.image {
                    image_index.push(flat);
                }
            }
            ranges.push(start..start + row.ids.len());
            next_position.push(begun + found.next.0);
        }
        let patches: usize = grids.iter().map(GridThw::patches).sum();
        let width = config.vision.patch_len();
        if pixel_values.len() != patches * width {
            return Err(ModelError::Placeholders {
                sample: "batch".into(),
                reason: format!(
                    "{} pixel values were given, but {patches} patches need {width} each",
                    pixel_values.len()
                ),
            });
        }
        let images = (!grids.is_empty()).then(|| ImageInputs {
            pixel_values: Tensor::from_data(TensorData::new(pixel_values, [patches, width]), device),
            grids: grids.to_vec(),
        });
        Ok(Self {
            input_ids: Tensor::from_data(TensorData::new(ids, [batch, seq]), device),
            position_ids: Tensor::from_data(TensorData::new(positions, [3, batch, seq]), device),
            rows: ranges,
            after: rows.iter().map(|row| row.after).collect(),
            next_position,
            image_index,
            image_features,
            images,
        })
    }

    /// Returns the number of rows and their padded length. A packed batch has one row.
    pub fn dims(&self) -> [usize; 2] {
        self.input_ids.dims()
    }

    /// Returns which tokens attend to which, with `past` cached tokens before each row.
    pub fn layout(&self, past: usize) -> AttentionLayout {
        let ([batch, seq], device) = (self.dims(), self.input_ids.device());
        if self.rows.len() == batch {
            AttentionLayout::batch(AttentionMask::causal(seq, past, &self.rows, &device))
        } else {
            AttentionLayout::packed(&self.rows, &self.after, &device)
        }
    }

    /// Returns true if any row is padded.
    pub fn is_padded(&self) -> bool {
        let [batch, seq] = self.dims();
        self.rows.iter().map(Range::len).sum::<usize>() != batch * seq
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TextConfig, VisionConfig, VisionTokens};

    fn inputs(rows: &[Row<'_>], padding: Padding) -> Result<ModelInputs, ModelError> {
        let text = TextConfig::new(20, 8, 8, 1, 1, 1, [2, 1, 1]);
        let vision = VisionConfig::new(1, 8, 8, 1, 8, 56, vec![0]);
        let config = Qwen25VlConfig::new(text, vision, VisionTokens::new(1, 2, 3, 4), true);
        ModelInputs::new(rows, &[], Vec::new(), padding, 0, &config, &Device::flex())
    }

    #[test]
    fn a_row_goes_on_where_the_one_that_it_continues_ends() {
        let (prompt, answer) = ([7, 8, 9], [5, 6]);
        let rows = [Row::new(&prompt, &[]), Row::new(&answer, &[]).continuing(0), Row::new(&answer, &[]).continuing(0)];
        let found = inputs(&rows, Padding::Packed).unwrap();
        let positions: Vec<i64> = found.position_ids.into_data().iter().collect();
        assert_eq!(positions[..7], [0, 1, 2, 3, 4, 3, 4]);
        assert_eq!(found.next_position, [RopePosition(3), RopePosition(5), RopePosition(5)]);
    }

    #[test]
    fn only_an_earlier_whole_row_of_a_packed_batch_is_continued() {
        let ids = [7, 8];
        let (row, after) = (Row::new(&ids, &[]), |before| Row::new(&ids, &[]).continuing(before));
        for (rows, padding, named) in [
            (vec![row, after(0)], Padding::Right, (1, 0)),
            (vec![row, after(0)], Padding::Left, (1, 0)),
            (vec![row, after(1)], Padding::Packed, (1, 1)),
            (vec![after(1), row], Padding::Packed, (0, 1)),
            (vec![row, after(7)], Padding::Packed, (1, 7)),
            (vec![row, after(0), after(1)], Padding::Packed, (2, 1)),
        ] {
            match inputs(&rows, padding) {
                Err(ModelError::Continuation { row, before }) => assert_eq!((row, before), named),
                other => panic!("{other:?}"),
            }
        }
    }
}
