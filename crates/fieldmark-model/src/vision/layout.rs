//! The attention layout of a batch of images: which patches attend to which.

use super::windows::ImageRun;
use crate::attention::{AttentionLayout, Tile};

impl AttentionLayout {
    /// Returns the layout of images: every patch sees every other in its window or, with `frames`, in its whole frame.
    pub fn images(runs: &[ImageRun], frames: bool) -> Self {
        let mut tiles = Vec::new();
        let mut start = 0;
        for run in runs {
            let (items, item_len) = (run.images, run.patches);
            let tile = |from, count, len| Tile { start, items, item_len, from, count, len, after: None };
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
