//! Rope positions of a sequence of text and images: the three rows of M-RoPE (time, height, width).
//!
//! Reference: `Qwen2_5_VLModel.get_rope_index`. Text counts up on all three rows. A token of an image that begins at
//! position p has p on the time row, p + row on the height row and p + column on the width row. Text after the image
//! continues at p + max(height, width), in tokens.

use std::ops::{Add, AddAssign};

use crate::{config::VisionTokens, error::ModelError, grid::GridThw};

/// Index of a token in its sequence, without padding. It differs from the rope position: an image has more tokens than
/// positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TokenIndex(pub usize);

/// A position for rotary embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RopePosition(pub usize);

impl Add<usize> for RopePosition {
    type Output = Self;

    fn add(self, by: usize) -> Self {
        Self(self.0 + by)
    }
}

impl AddAssign<usize> for RopePosition {
    fn add_assign(&mut self, by: usize) {
        self.0 += by;
    }
}

/// The positions of one sequence: three rows, each as long as the sequence, and the position of the next token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequencePositions {
    /// Time, height, width.
    pub rows: [Vec<RopePosition>; 3],
    /// Position of the next token, the same on all three rows.
    pub next: RopePosition,
}

impl SequencePositions {
    /// Returns the positions of one token in time, height and width.
    ///
    /// # Panics
    /// Panics if the sequence has no such token.
    pub fn at(&self, token: TokenIndex) -> [RopePosition; 3] {
        std::array::from_fn(|axis| self.rows[axis][token.0])
    }
}

/// Returns the positions of `ids`. The image tokens in `ids` belong to the images in `grids`, in order.
///
/// # Errors
/// Returns [`ModelError::Placeholders`], without the name of a sample, if the image tokens do not match `grids`.
pub fn rope_positions(
    ids: &[u32],
    grids: &[GridThw],
    tokens: &VisionTokens,
    merge_size: usize,
) -> Result<SequencePositions, ModelError> {
    let mut rows: [Vec<RopePosition>; 3] = std::array::from_fn(|_| Vec::with_capacity(ids.len()));
    let mut next = RopePosition(0);
    let mut images = grids.iter();
    let mut at = 0;
    while at < ids.len() {
        if ids[at] == tokens.video {
            return Err(placeholders(format!("token {at} is a video placeholder: videos are not supported")));
        }
        if ids[at] != tokens.image {
            rows.iter_mut().for_each(|row| row.push(next));
            next += 1;
            at += 1;
            continue;
        }
        let run = ids[at..].iter().take_while(|&&id| id == tokens.image).count();
        let Some(grid) = images.next() else {
            return Err(placeholders(format!(
                "the {run} image tokens from token {at} on have no image: only {} images were given",
                grids.len()
            )));
        };
        let wanted = grid.tokens(merge_size);
        if run < wanted {
            return Err(placeholders(format!(
                "there are {run} image tokens from token {at} on, but the image of {}×{} patches needs {wanted}",
                grid.h, grid.w
            )));
        }
        let (height, width) = (grid.h / merge_size, grid.w / merge_size);
        for t in 0..grid.t {
            for y in 0..height {
                for x in 0..width {
                    for (row, offset) in rows.iter_mut().zip([t, y, x]) {
                        row.push(next + offset);
                    }
                }
            }
        }
        next += grid.t.max(height).max(width);
        at += wanted;
    }
    match images.len() {
        0 => Ok(SequencePositions { rows, next }),
        left => Err(placeholders(format!(
            "{} images were given, but the text has image tokens for only {}",
            grids.len(),
            grids.len() - left
        ))),
    }
}

fn placeholders(reason: String) -> ModelError {
    ModelError::Placeholders { sample: "sequence".into(), reason }
}
