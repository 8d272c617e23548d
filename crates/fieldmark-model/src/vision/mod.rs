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

use crate::{config::VisionConfig, inputs::ImageInputs};

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
        let config = &self.config;
        let device = images.pixel_values.device();
        let plan = WindowPlan::new(&images.grids, config);
        let rotary =
            rope::vision_rotary(&images.grids, &plan.order, config.spatial_merge_size, config.head_dim(), &device);
        let pixels = images.pixel_values.clone().cast(self.patch_embed.proj.weight.dtype());
        let x_ND = self.patch_embed.proj.forward(pixels);
        see(Stage::PatchEmbed, x_ND.clone());
        let rotary = rotary.cast(x_ND.dtype());
        let mut x_ND = reorder(x_ND, &plan.order, config.merge_unit(), &device);
        for (i, block) in self.blocks.iter().enumerate() {
            let full = config.fullatt_block_indexes.contains(&i);
            x_ND = block.forward(x_ND, &rotary, &plan.runs, full);
            see(Stage::Block, x_ND.clone());
        }
        let tokens = self.merger.forward(x_ND);
        see(Stage::Merger, tokens.clone());
        reorder(tokens, &plan.inverse, 1, &device)
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
