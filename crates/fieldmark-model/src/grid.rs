//! The size of an image in patches.

use serde::{Deserialize, Serialize};

/// Time, height and width in patches (reference: a row of `image_grid_thw`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GridThw {
    /// Number of frames divided by the temporal patch size; 1 for an image.
    pub t: usize,
    /// Number of rows of patches.
    pub h: usize,
    /// Number of columns of patches.
    pub w: usize,
}

impl GridThw {
    /// Returns the grid of a still image.
    pub fn image(h: usize, w: usize) -> Self {
        Self { t: 1, h, w }
    }

    /// Returns the number of patches.
    pub fn patches(&self) -> usize {
        self.t * self.h * self.w
    }

    /// Returns the number of tokens after groups of `merge_size` × `merge_size` patches are joined.
    pub fn tokens(&self, merge_size: usize) -> usize {
        self.t * (self.h / merge_size) * (self.w / merge_size)
    }
}
