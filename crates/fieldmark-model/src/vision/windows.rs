//! The order of patches in the encoder, and the windows within which they attend.
//!
//! Reference: `get_vision_window_index`. Patches move in groups of `merge_size`² (one future token). The reference
//! places one window after another. Here the windows of a frame are also sorted by length, so that windows of one
//! length are adjacent and become a batch without a mask. Consecutive images of one size are computed together.

use std::{cmp::Reverse, ops::Range};

use crate::{config::VisionConfig, grid::GridThw};

/// Windows of one length within an image: patches `start .. start + count · len`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowGroup {
    /// First patch, counted within the image.
    pub start: usize,
    /// Number of windows.
    pub count: usize,
    /// Number of patches in each window.
    pub len: usize,
}

/// Consecutive images of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRun {
    /// Number of images.
    pub images: usize,
    /// Number of frames in each image. Full attention stays within a frame.
    pub frames: usize,
    /// Number of patches in each image.
    pub patches: usize,
    /// Windows of one image, grouped by length.
    pub windows: Vec<WindowGroup>,
}

/// Patch order and windows of all images of a batch.
#[derive(Debug, Clone)]
pub struct WindowPlan {
    /// `order[i]` is the token (group of merged patches, numbered in image order) at place i.
    pub order: Vec<usize>,
    /// `inverse[order[i]] == i`.
    pub inverse: Vec<usize>,
    /// `reference_place[i]` is the place of the same token in the reference, which does not sort by length.
    pub reference_place: Vec<usize>,
    /// Runs of images of one size, in order.
    pub runs: Vec<ImageRun>,
}

impl WindowPlan {
    /// Plans a batch of images of these sizes.
    pub fn new(grids: &[GridThw], config: &VisionConfig) -> Self {
        let mut order = Vec::new();
        let mut reference_place = Vec::new();
        let mut runs: Vec<(GridThw, ImageRun)> = Vec::new();
        for grid in grids {
            let first = order.len();
            let mut windows = image_windows(grid, config);
            // Full attention needs each frame in one piece, so windows are sorted within frames.
            let frame = GridThw { t: 1, ..*grid }.tokens(config.spatial_merge_size);
            let mut place = first;
            let mut placed: Vec<(Vec<usize>, Range<usize>)> = windows
                .drain(..)
                .map(|window| {
                    let range = place..place + window.len();
                    place = range.end;
                    (window, range)
                })
                .collect();
            placed.sort_by_key(|(window, _)| (window[0] / frame, Reverse(window.len())));
            let mut groups: Vec<WindowGroup> = Vec::new();
            let unit = config.merge_unit();
            for (window, range) in placed {
                match groups.last_mut().filter(|group| group.len == window.len() * unit) {
                    Some(group) => group.count += 1,
                    None => groups.push(WindowGroup {
                        start: (order.len() - first) * unit,
                        count: 1,
                        len: window.len() * unit,
                    }),
                }
                order.extend(window.iter().map(|token| first + token));
                reference_place.extend(range);
            }
            match runs.last_mut().filter(|(last, _)| last == grid) {
                Some((_, run)) => run.images += 1,
                None => {
                    let run = ImageRun { images: 1, frames: grid.t, patches: grid.patches(), windows: groups };
                    runs.push((*grid, run));
                }
            }
        }
        let mut inverse = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, &token)| inverse[token] = place);
        Self { order, inverse, reference_place, runs: runs.into_iter().map(|(_, run)| run).collect() }
    }
}

/// Returns the windows of one image in reading order, each a list of tokens. No window is empty or spans frames.
fn image_windows(grid: &GridThw, config: &VisionConfig) -> Vec<Vec<usize>> {
    let (height, width) = (grid.h / config.spatial_merge_size, grid.w / config.spatial_merge_size);
    let side = config.window_tokens();
    let mut windows = Vec::new();
    for t in 0..grid.t {
        for top in (0..height).step_by(side) {
            for left in (0..width).step_by(side) {
                let rows = top..(top + side).min(height);
                let columns = left..(left + side).min(width);
                windows.push(
                    rows.flat_map(|y| columns.clone().map(move |x| (t * height + y) * width + x)).collect::<Vec<_>>(),
                );
            }
        }
    }
    windows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VisionConfig {
        VisionConfig::new(1, 8, 8, 1, 8, 56, vec![])
    }

    #[test]
    fn a_side_that_the_window_divides_gets_no_empty_window() {
        let plan = WindowPlan::new(&[GridThw::image(8, 4)], &config());
        assert_eq!(plan.runs[0].windows, vec![WindowGroup { start: 0, count: 2, len: 16 }]);
    }

    #[test]
    fn edge_windows_follow_the_full_ones_and_the_order_is_a_permutation() {
        let grids = [GridThw::image(6, 10), GridThw::image(6, 10), GridThw::image(4, 4)];
        let plan = WindowPlan::new(&grids, &config());
        assert_eq!(plan.runs.iter().map(|run| run.images).collect::<Vec<_>>(), [2, 1]);
        let lengths: Vec<_> = plan.runs[0].windows.iter().map(|group| (group.len, group.count)).collect();
        assert_eq!(lengths, [(16, 2), (8, 3), (4, 1)]);
        for (place, &token) in plan.order.iter().enumerate() {
            assert_eq!(plan.inverse[token], place);
        }
    }
}
