//! Two-dimensional rotary positions of patches.
//!
//! Reference: `get_vision_position_ids` and `Qwen2_5_VisionRotaryEmbedding`. Each axis has head_dim / 4 frequencies
//! with base 1e4. The first half of the angles follows the row, the second half the column. Patches are numbered merge
//! group by merge group, as in `pixel_values`.

use burn::tensor::Device;

use crate::{
    attention::rotary::{Rotary, inverse_frequencies},
    grid::GridThw,
};

/// Returns row and column of every patch of `grids`, in image order.
pub fn patch_positions(grids: &[GridThw], merge_size: usize) -> Vec<[usize; 2]> {
    let mut positions = Vec::with_capacity(grids.iter().map(GridThw::patches).sum());
    for grid in grids {
        for _ in 0..grid.t {
            for top in (0..grid.h).step_by(merge_size) {
                for left in (0..grid.w).step_by(merge_size) {
                    for y in 0..merge_size {
                        positions.extend((0..merge_size).map(|x| [top + y, left + x]));
                    }
                }
            }
        }
    }
    positions
}

/// Returns the rotary embedding, `[1, 1, patches, head_dim / 2]`, of patches in `token_order` (groups of
/// `merge_size`²).
pub fn vision_rotary(
    grids: &[GridThw],
    token_order: &[usize],
    merge_size: usize,
    head_dim: usize,
    device: &Device,
) -> Rotary {
    let positions = patch_positions(grids, merge_size);
    let frequencies = inverse_frequencies(head_dim / 2, 1e4);
    let unit = merge_size * merge_size;
    let mut angles = Vec::with_capacity(positions.len() * head_dim / 2);
    for &token in token_order {
        for position in &positions[token * unit..(token + 1) * unit] {
            for &axis in position {
                angles.extend(frequencies.iter().map(|frequency| axis as f32 * frequency));
            }
        }
    }
    Rotary::from_angles(&angles, [1, positions.len(), head_dim / 2], device)
}
