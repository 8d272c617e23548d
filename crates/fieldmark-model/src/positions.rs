//! Rope positions of a sequence of text and images: M-RoPE's three rows.
//!
//! Reference: `Qwen2_5_VLModel.get_rope_index`. Text counts up on all three rows; an image takes its start on the
//! time row and start + row, start + column on the others; text resumes at start + max(height, width) in tokens.

use std::ops::{Add, AddAssign};

use crate::{config::VisionTokens, error::ModelError, grid::GridThw};

/// Place of a token in its sequence, padding not counted. Not a rope position: an image has more tokens than positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TokenIndex(pub usize);

/// A position that rotary embeddings see.
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

/// The three rows of one sequence, each as long as the sequence, and where the next token goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequencePositions {
    /// Time, height, width.
    pub rows: [Vec<RopePosition>; 3],
    /// Position of the token that follows, the same on all three rows.
    pub next: RopePosition,
}

impl SequencePositions {
    /// Time, height and width of one token.
    ///
    /// # Panics
    /// If the sequence has no such token.
    pub fn at(&self, token: TokenIndex) -> [RopePosition; 3] {
        std::array::from_fn(|axis| self.rows[axis][token.0])
    }
}

/// Positions of `ids`, whose runs of image tokens stand for `grids` in order.
///
/// # Errors
/// [`ModelError::Placeholders`], without a sample's name, if the image tokens are not exactly those of `grids`.
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
            return Err(placeholders(format!("token {at} is a video placeholder; videos are not supported")));
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
                "{run} image tokens from token {at} on belong to no image: {} images were given",
                grids.len()
            )));
        };
        let wanted = grid.tokens(merge_size);
        if run < wanted {
            return Err(placeholders(format!(
                "{run} image tokens from token {at} on, but the image of {}×{} patches has {wanted} features",
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
            "{} images were given, but the text has placeholders for {}",
            grids.len(),
            grids.len() - left
        ))),
    }
}

fn placeholders(reason: String) -> ModelError {
    ModelError::Placeholders { sample: "sequence".into(), reason }
}
