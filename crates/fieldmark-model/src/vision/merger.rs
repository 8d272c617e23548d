//! The projector: joins 2×2 patches into one token of the decoder's width.
//!
//! Reference: `Qwen2_5_VLPatchMerger`. It applies a norm to each patch, then a two-layer MLP with exact GELU to four
//! joined patches.

use burn::{
    module::Module,
    nn::{RmsNorm, RmsNormConfig},
    tensor::{Device, Tensor, activation},
};

use crate::{config::VisionConfig, norm::rms_norm, projection::Projection};

/// The projector: `ln_q`, `mlp.0` and `mlp.2` of the reference.
#[derive(Module, Debug)]
pub struct PatchMerger {
    pub(crate) ln_q: RmsNorm,
    pub(crate) fc1: Projection,
    pub(crate) fc2: Projection,
}

impl PatchMerger {
    pub(crate) fn new(config: &VisionConfig, device: &Device) -> Self {
        let joined = config.hidden_size * config.merge_unit();
        Self {
            ln_q: RmsNormConfig::new(config.hidden_size).with_epsilon(1e-6).init(device),
            fc1: Projection::new(joined, joined, true, device),
            fc2: Projection::new(joined, config.out_hidden_size, true, device),
        }
    }

    /// Maps `[patches, width]` to `[tokens, out_width]`, in the type of the projector's weights.
    pub(crate) fn forward(&self, x_nd: Tensor<2>) -> Tensor<2> {
        let [patches, width] = x_nd.dims();
        let [joined, _] = self.fc1.widths();
        let tokens = patches * width / joined;
        let x_nd = x_nd.cast(self.fc1.dtype());
        let x = rms_norm(&self.ln_q, x_nd).reshape([tokens, joined]);
        self.fc2.forward(gelu(self.fc1.forward(x)))
    }
}

/// Exact GELU, x Φ(x). With autodiff it is written out: only on the CPU is the derivative of Burn's GELU exact.
/// Elsewhere Burn uses the derivative of the tanh approximation, with errors of up to a thousandth.
fn gelu(x: Tensor<2>) -> Tensor<2> {
    if !x.is_autodiff() {
        return activation::gelu(x);
    }
    let twice_phi = (x.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0;
    x * twice_phi * 0.5
}
