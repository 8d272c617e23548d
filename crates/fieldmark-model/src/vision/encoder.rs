//! The vision encoder: maps patches to embeddings, one for each 2×2 patches.
//!
//! Reference: `Qwen2_5_VisionTransformerPretrainedModel`.

use burn::{
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::{Device, Tensor},
};

use super::{
    block::VisionBlock,
    merger::PatchMerger,
    plan::{VisionPlan, reorder},
    windows::WindowPlan,
};
use crate::{block::AttentionBlock, config::VisionConfig, inputs::ImageInputs};

/// The patch convolution. Its stride equals its kernel size, so it is a linear map of each flattened patch.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    pub(crate) proj: Linear,
}

/// The vision encoder with patch embedding, blocks and projector.
#[derive(Module, Debug)]
pub struct VisionEncoder {
    pub(crate) patch_embed: PatchEmbed,
    pub(crate) blocks: Vec<VisionBlock>,
    pub(crate) merger: PatchMerger,
    #[module(skip)]
    config: VisionConfig,
}

/// The intermediate results of the encoder, for comparison with the reference.
#[derive(Debug, Clone)]
pub struct VisionTrace {
    /// After the patch embedding, `[patches, width]`, in image order.
    pub patch_embed: Tensor<2>,
    /// After each block, `[patches, width]`, in the reference's window order.
    pub blocks: Vec<Tensor<2>>,
    /// After the projector, `[tokens, out_width]`, in the reference's window order.
    pub merger_raw: Tensor<2>,
    /// After the projector, in image order: the result of [`VisionEncoder::forward`].
    pub merged: Tensor<2>,
}

impl VisionConfig {
    /// Returns a new encoder. Burn initialises each parameter with its default at first use.
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
    /// Returns the embeddings of all images, `[tokens, out_width]`, in image order.
    pub fn forward(&self, images: &ImageInputs) -> Tensor<2> {
        self.run(images, |_, _| ())
    }

    /// Like [`Self::forward`], but returns every intermediate result that hooks in the reference would record.
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
        let x_nd = self.patch_embed.proj.forward(pixels);
        see(Stage::PatchEmbed, x_nd.clone());
        let mut x_bnd = plan.arrange(x_nd);
        for (i, block) in self.blocks.iter().enumerate() {
            x_bnd = block.run(x_bnd, &plan.rotary, plan.layout(i));
            see(Stage::Block, x_bnd.clone().squeeze_dim(0));
        }
        let tokens = self.merger.forward(x_bnd.squeeze_dim(0));
        see(Stage::Merger, tokens.clone());
        plan.restore(tokens)
    }

    /// Returns order, rotary embedding and attention layouts of a batch of images, on `device`.
    pub fn plan(&self, images: &ImageInputs, device: &Device) -> VisionPlan {
        VisionPlan::new(&images.grids, &self.config, self.patch_embed.proj.weight.dtype(), device)
    }

    /// Returns the first block's input, `[1, patches, width]`, in the plan's order.
    pub fn embed_patches(&self, images: &ImageInputs, plan: &VisionPlan) -> Tensor<3> {
        let pixels = images.pixel_values.clone().cast(self.patch_embed.proj.weight.dtype());
        plan.arrange(self.patch_embed.proj.forward(pixels))
    }

    /// Returns the patch embedding.
    pub fn patch_embed(&self) -> &PatchEmbed {
        &self.patch_embed
    }

    /// Returns the projector.
    pub fn merger(&self) -> &PatchMerger {
        &self.merger
    }

    /// Returns the blocks. Run each with the plan's rotary embedding and its own [`VisionPlan::layout`].
    pub fn blocks(&self) -> &[VisionBlock] {
        &self.blocks
    }

    /// Applies the projector to the last block's output. Returns embeddings, `[tokens, out_width]`, in image order.
    pub fn merge(&self, x_bnd: Tensor<3>, plan: &VisionPlan) -> Tensor<2> {
        plan.restore(self.merger.forward(x_bnd.squeeze_dim(0)))
    }
}

enum Stage {
    PatchEmbed,
    Block,
    Merger,
}
