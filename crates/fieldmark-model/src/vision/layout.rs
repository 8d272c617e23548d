//! Who attends to whom among the patches of a batch of images.

use super::windows::ImageRun;
use crate::attention::{AttentionLayout, Tile};

impl AttentionLayout {
    /// The windows of images, or with `frames` their whole frames; every patch of a tile sees every other.
    pub fn images(runs: &[ImageRun], frames: bool) -> Self {
        let mut tiles = Vec::new();
        let mut start = 0;
        for run in runs {
            let tile = |from, count, len| Tile { start, items: run.images, item_len: run.patches, from, count, len };
            if frames {
                tiles.push(tile(0, run.frames, run.patches / run.frames));
            } else {
                tiles.extend(run.windows.iter().map(|group| tile(group.start, group.count, group.len)));
            }
            start += run.images * run.patches;
        }
        Self::tiled(tiles)
    }
}
