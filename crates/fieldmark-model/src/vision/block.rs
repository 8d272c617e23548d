//! One block of the vision encoder: attention within windows or whole frames, then a gated MLP with biases.
//!
//! Reference: `Qwen2_5_VLVisionBlock`. All patches of a batch are in one row, `[1, patches, width]`.

use burn::{
    module::Module,
    nn::{RmsNorm, RmsNormConfig},
    tensor::{Device, Tensor},
};

use crate::{
    attention::rotary::Rotary, block::AttentionBlock, config::VisionConfig, mlp::GatedMlp, norm::rms_norm,
    projection::Projection,
};

/// Fused query, key and value projection, and the output projection.
#[derive(Module, Debug)]
pub struct VisionAttention {
    pub(crate) qkv: Projection,
    pub(crate) proj: Projection,
    heads: usize,
}

impl VisionAttention {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            qkv: Projection::new(width, 3 * width, true, device),
            proj: Projection::new(width, width, true, device),
            heads: config.num_heads,
        }
    }

    /// Projects patches, `[1, patches, width]`, to queries, keys and values, `[1, patches, heads, head_dim]` each.
    fn project(&self, x_bnd: Tensor<3>, rotary: &Rotary) -> [Tensor<4>; 3] {
        let [_, patches, width] = x_bnd.dims();
        let dim = width / self.heads;
        // [patches, 3, heads, dim] -> three of [1, heads, patches, dim]
        let qkv = self.qkv.forward(x_bnd).reshape([patches, 3, self.heads, dim]).permute([1, 2, 0, 3]);
        let part = |i| qkv.clone().narrow(0, i, 1);
        [rotary.apply(part(0)), rotary.apply(part(1)), part(2)].map(|x| x.swap_dims(1, 2))
    }
}

/// Attention and MLP, each with a norm before it and added to the residual stream.
#[derive(Module, Debug)]
pub struct VisionBlock {
    pub(crate) norm1: RmsNorm,
    pub(crate) norm2: RmsNorm,
    pub(crate) attn: VisionAttention,
    pub(crate) mlp: GatedMlp,
}

impl VisionBlock {
    pub(crate) fn new(config: &VisionConfig, device: &Device) -> Self {
        let norm = || RmsNormConfig::new(config.hidden_size).with_epsilon(1e-6).init(device);
        Self {
            norm1: norm(),
            norm2: norm(),
            attn: VisionAttention::new(config, device),
            mlp: GatedMlp::new(config.hidden_size, config.intermediate_size, true, device),
        }
    }

    /// Returns the linear layers with their names within the block.
    pub(crate) fn projections_mut(&mut self) -> Vec<(String, &mut Projection)> {
        let VisionAttention { qkv, proj, .. } = &mut self.attn;
        let attention = [("qkv", qkv), ("proj", proj)].map(|(name, layer)| (format!("attn.{name}"), layer));
        let mlp = self.mlp.projections_mut().map(|(name, layer)| (format!("mlp.{name}"), layer));
        attention.into_iter().chain(mlp).collect()
    }
}

impl AttentionBlock for VisionBlock {
    fn project(&self, x_bnd: Tensor<3>, rotary: &Rotary) -> [Tensor<4>; 3] {
        self.attn.project(rms_norm(&self.norm1, x_bnd), rotary)
    }

    fn finish(&self, x_bnd: Tensor<3>, attended: Tensor<4>) -> Tensor<3> {
        let attended_bnd = attended.reshape(x_bnd.dims());
        let x_bnd = x_bnd + self.attn.proj.forward(attended_bnd);
        x_bnd.clone() + self.mlp.forward(rms_norm(&self.norm2, x_bnd))
    }
}
