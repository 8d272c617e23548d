//! The vision encoder: patches in, one embedding for each 2×2 patches out.
//!
//! Reference: `Qwen2_5_VisionTransformerPretrainedModel`.

mod block;
mod merger;
pub(crate) mod rope;
pub(crate) mod windows;

use burn::{
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::{Device, Int, Tensor, TensorData},
};

pub use block::{VisionAttention, VisionBlock};
pub use merger::PatchMerger;
pub use rope::patch_positions;
pub use windows::{ImageRun, WindowGroup, WindowPlan};

use crate::{
    attention_layout::AttentionLayout, block::AttentionBlock, config::VisionConfig, inputs::ImageInputs, rotary::Rotary,
};

/// The patch convolution: its stride is its kernel, so it is a linear map of each flattened patch.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    pub(crate) proj: Linear,
}

/// Patch embedding, blocks and projector.
#[derive(Module, Debug)]
pub struct VisionEncoder {
    pub(crate) patch_embed: PatchEmbed,
    pub(crate) blocks: Vec<VisionBlock>,
    pub(crate) merger: PatchMerger,
    #[module(skip)]
    config: VisionConfig,
}

/// What the encoder passes through, for comparison with the reference.
#[derive(Debug, Clone)]
pub struct VisionTrace {
    /// After the patch embedding, `[patches, width]`, image order.
    pub patch_embed: Tensor<2>,
    /// After each block, `[patches, width]`, in the reference's window order.
    pub blocks: Vec<Tensor<2>>,
    /// After the projector, `[tokens, out_width]`, in the reference's window order.
    pub merger_raw: Tensor<2>,
    /// The same in image order: what [`VisionEncoder::forward`] returns.
    pub merged: Tensor<2>,
}

impl VisionConfig {
    /// A new encoder with Burn's default initialisation, parameter by parameter at first use.
    pub fn init(&self, device: &Device) -> VisionEncoder {
        VisionEncoder {
            patch_embed: PatchEmbed {
                proj: LinearConfig::new(self.patch_len(), self.hidden_size).with_bias(false).init(device),
            },
            blocks: (0..self.depth).map(|_| VisionBlock::new(self, device)).collect(),
            merger: PatchMerger::new(self, device),
            config: self.clone(),
        }
    }
}

impl VisionEncoder {
    /// Embeddings of all images, `[tokens, out_width]`, in image order.
    pub fn forward(&self, images: &ImageInputs) -> Tensor<2> {
        self.run(images, |_, _| ())
    }

    /// The same, with what the reference's hooks would see.
    pub fn trace(&self, images: &ImageInputs) -> VisionTrace {
        let plan = WindowPlan::new(&images.grids, &self.config);
        let mut to_reference = vec![0; plan.order.len()];
        plan.reference_place.iter().enumerate().for_each(|(place, &reference)| to_reference[reference] = place);
        let mut seen = Vec::new();
        let merged = self.run(images, |stage, x| seen.push((stage, x)));
        let device = merged.device();
        let mut trace =
            VisionTrace { patch_embed: merged.clone(), blocks: Vec::new(), merger_raw: merged.clone(), merged };
        for (stage, x) in seen {
            match stage {
                Stage::PatchEmbed => trace.patch_embed = x,
                Stage::Block => trace.blocks.push(reorder(x, &to_reference, self.config.merge_unit(), &device)),
                Stage::Merger => trace.merger_raw = reorder(x, &to_reference, 1, &device),
            }
        }
        trace
    }

    fn run(&self, images: &ImageInputs, mut see: impl FnMut(Stage, Tensor<2>)) -> Tensor<2> {
        let plan = self.plan(images, &images.pixel_values.device());
        let pixels = images.pixel_values.clone().cast(self.patch_embed.proj.weight.dtype());
        let x_ND = self.patch_embed.proj.forward(pixels);
        see(Stage::PatchEmbed, x_ND.clone());
        let mut x_BND = plan.arrange(x_ND);
        for (i, block) in self.blocks.iter().enumerate() {
            x_BND = block.run(x_BND, &plan.rotary, plan.layout(i));
            see(Stage::Block, x_BND.clone().squeeze_dim(0));
        }
        let tokens = self.merger.forward(x_BND.squeeze_dim(0));
        see(Stage::Merger, tokens.clone());
        plan.restore(tokens)
    }

    /// Order, positions and attention of a batch of images, on `device`.
    pub fn plan(&self, images: &ImageInputs, device: &Device) -> VisionPlan {
        let config = &self.config;
        let windows = WindowPlan::new(&images.grids, config);
        let rotary =
            rope::vision_rotary(&images.grids, &windows.order, config.spatial_merge_size, config.head_dim(), device);
        VisionPlan {
            rotary: rotary.cast(self.patch_embed.proj.weight.dtype()),
            within_windows: AttentionLayout::images(&windows.runs, false),
            within_frames: AttentionLayout::images(&windows.runs, true),
            full: config.fullatt_block_indexes.clone(),
            unit: config.merge_unit(),
            order: windows.order,
            inverse: windows.inverse,
        }
    }

    /// Patches to the first block's input, `[1, patches, width]` in the plan's order.
    pub fn embed_patches(&self, images: &ImageInputs, plan: &VisionPlan) -> Tensor<3> {
        let pixels = images.pixel_values.clone().cast(self.patch_embed.proj.weight.dtype());
        plan.arrange(self.patch_embed.proj.forward(pixels))
    }

    /// The patch embedding.
    pub fn patch_embed(&self) -> &PatchEmbed {
        &self.patch_embed
    }

    /// The projector.
    pub fn merger(&self) -> &PatchMerger {
        &self.merger
    }

    /// The blocks, each to be run with the plan's rotary embedding and its [`VisionPlan::layout`].
    pub fn blocks(&self) -> &[VisionBlock] {
        &self.blocks
    }

    /// The projector: the last block's output to embeddings, `[tokens, out_width]`, in image order.
    pub fn merge(&self, x_BND: Tensor<3>, plan: &VisionPlan) -> Tensor<2> {
        plan.restore(self.merger.forward(x_BND.squeeze_dim(0)))
    }
}

/// What the blocks need to know of a batch of images.
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
    /// How the patches attend in block `block`.
    pub fn layout(&self, block: usize) -> &AttentionLayout {
        if self.full.contains(&block) { &self.within_frames } else { &self.within_windows }
    }

    fn arrange(&self, x_ND: Tensor<2>) -> Tensor<3> {
        let device = x_ND.device();
        reorder(x_ND, &self.order, self.unit, &device).unsqueeze_dim(0)
    }

    fn restore(&self, tokens: Tensor<2>) -> Tensor<2> {
        let device = tokens.device();
        reorder(tokens, &self.inverse, 1, &device)
    }
}

enum Stage {
    PatchEmbed,
    Block,
    Merger,
}

/// Takes groups of `unit` rows of `x` in the order given; nothing is copied where the order is the identity.
fn reorder(x: Tensor<2>, order: &[usize], unit: usize, device: &Device) -> Tensor<2> {
    if order.iter().enumerate().all(|(place, &token)| place == token) {
        return x;
    }
    let [rows, width] = x.dims();
    let index: Vec<i64> = order.iter().map(|&token| token as i64).collect();
    let index = Tensor::<1, Int>::from_data(TensorData::new(index, [order.len()]), device);
    x.reshape([rows / unit, unit * width]).select(0, index).reshape([rows, width])
}
