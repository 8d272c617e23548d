//! The plan of a batch of images: patch order, rotary embedding and attention layouts.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use super::{rope::vision_rotary, windows::WindowPlan};
use crate::{
    attention::{AttentionLayout, rotary::Rotary},
    config::VisionConfig,
    grid::GridThw,
};

/// Patch order, rotary embedding and attention layouts of a batch of images, shared by all blocks.
#[derive(Debug, Clone)]
pub struct VisionPlan {
    /// Rotary embedding of the patches in the plan's order.
    pub rotary: Rotary,
    within_windows: AttentionLayout,
    within_frames: AttentionLayout,
    full: Vec<usize>,
    unit: usize,
    order: Vec<usize>,
    inverse: Vec<usize>,
}

impl VisionPlan {
    /// Plans a batch of images of these sizes for activations of `dtype`.
    pub(super) fn new(grids: &[GridThw], config: &VisionConfig, dtype: DType, device: &Device) -> Self {
        let windows = WindowPlan::new(grids, config);
        let rotary = vision_rotary(grids, &windows.order, config.spatial_merge_size, config.head_dim(), device);
        Self {
            rotary: rotary.cast(dtype),
            within_windows: AttentionLayout::images(&windows.runs, false),
            within_frames: AttentionLayout::images(&windows.runs, true),
            full: config.fullatt_block_indexes.clone(),
            unit: config.merge_unit(),
            order: windows.order,
            inverse: windows.inverse,
        }
    }

    /// Returns the attention layout of block `block`: whole frames or windows.
    pub fn layout(&self, block: usize) -> &AttentionLayout {
        if self.full.contains(&block) { &self.within_frames } else { &self.within_windows }
    }

    /// Brings patches, `[patches, width]`, from image order into the plan's order, `[1, patches, width]`.
    pub(super) fn arrange(&self, x_nd: Tensor<2>) -> Tensor<3> {
        let device = x_nd.device();
        reorder(x_nd, &self.order, self.unit, &device).unsqueeze_dim(0)
    }

    /// Brings tokens, `[tokens, width]`, from the plan's order back into image order.
    pub(super) fn restore(&self, tokens: Tensor<2>) -> Tensor<2> {
        let device = tokens.device();
        reorder(tokens, &self.inverse, 1, &device)
    }
}

/// Reorders groups of `unit` rows of `x`. Copies nothing if the order is the identity.
pub(super) fn reorder(x: Tensor<2>, order: &[usize], unit: usize, device: &Device) -> Tensor<2> {
    if order.iter().enumerate().all(|(place, &token)| place == token) {
        return x;
    }
    let [rows, width] = x.dims();
    let index: Vec<i64> = order.iter().map(|&token| token as i64).collect();
    let index = Tensor::<1, Int>::from_data(TensorData::new(index, [order.len()]), device);
    x.reshape([rows / unit, unit * width]).select(0, index).reshape([rows, width])
}
