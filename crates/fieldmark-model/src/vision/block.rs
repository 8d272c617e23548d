//! One block of the vision encoder: attention inside windows or whole frames, then a gated MLP with biases.
//!
//! Reference: `Qwen2_5_VLVisionBlock`.

use burn::{
    module::Module,
    nn::{Linear, LinearConfig, RmsNorm, RmsNormConfig},
    tensor::{Device, Tensor},
};

use super::windows::ImageRun;
use crate::{
    attention::{AttentionMask, attend},
    config::VisionConfig,
    mlp::GatedMlp,
    rotary::Rotary,
};

/// Fused query, key and value projection, and the output projection.
#[derive(Module, Debug)]
pub struct VisionAttention {
    pub(crate) qkv: Linear,
    pub(crate) proj: Linear,
    heads: usize,
}

impl VisionAttention {
    fn new(config: &VisionConfig, device: &Device) -> Self {
        let width = config.hidden_size;
        Self {
            qkv: LinearConfig::new(width, 3 * width).init(device),
            proj: LinearConfig::new(width, width).init(device),
            heads: config.num_heads,
        }
    }

    /// `x_ND`: all patches of the batch, `[patches, width]`, in the plan's order.
    fn forward(&self, x_ND: Tensor<2>, rotary: &Rotary, runs: &[ImageRun], full: bool) -> Tensor<2> {
        let [patches, width] = x_ND.dims();
        let dim = width / self.heads;
        // [patches, 3, heads, dim] -> three of [1, heads, patches, dim]
        let qkv = self.qkv.forward(x_ND).reshape([patches, 3, self.heads, dim]).permute([1, 2, 0, 3]);
        let part = |i| qkv.clone().narrow(0, i, 1);
        let (q, k, v) = (rotary.apply(part(0)), rotary.apply(part(1)), part(2));
        let mut outputs = Vec::new();
        let mut start = 0;
        for run in runs {
            let rows = run.images * run.patches;
            // [heads, patches of the run, dim] -> [images, patches of one, heads, dim]
            let split = |x: &Tensor<4>| {
                x.clone()
                    .narrow(2, start, rows)
                    .reshape([self.heads, run.images, run.patches, dim])
                    .permute([1, 2, 0, 3])
            };
            let (q, k, v) = (split(&q), split(&k), split(&v));
            let mut parts = Vec::new();
            for (from, count, len) in slices(run, full) {
                // Windows join the images on the batch axis.
                let windows = |x: &Tensor<4>| {
                    let x = x.clone().narrow(1, from, count * len);
                    x.reshape([run.images * count, len, self.heads, dim]).swap_dims(1, 2)
                };
                let out = attend(windows(&q), windows(&k), windows(&v), &AttentionMask::none());
                parts.push(out.swap_dims(1, 2).reshape([run.images, count * len, width]));
            }
            let out = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 1) };
            outputs.push(out.reshape([rows, width]));
            start += rows;
        }
        let out = if outputs.len() == 1 { outputs.remove(0) } else { Tensor::cat(outputs, 0) };
        self.proj.forward(out)
    }
}

/// (first patch, number, length) of the spans that attend to themselves in each image of a run.
fn slices(run: &ImageRun, full: bool) -> Vec<(usize, usize, usize)> {
    if full {
        vec![(0, run.frames, run.patches / run.frames)]
    } else {
        run.windows.iter().map(|group| (group.start, group.count, group.len)).collect()
    }
}

/// Pre-norm attention and MLP, each added to the residual stream.
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

    /// `x_ND`: `[patches, width]`; `full` attends over whole frames instead of windows.
    pub(crate) fn forward(&self, x_ND: Tensor<2>, rotary: &Rotary, runs: &[ImageRun], full: bool) -> Tensor<2> {
        let x_ND = x_ND.clone() + self.attn.forward(self.norm1.forward(x_ND), rotary, runs, full);
        x_ND.clone() + self.mlp.forward(self.norm2.forward(x_ND))
    }
}
