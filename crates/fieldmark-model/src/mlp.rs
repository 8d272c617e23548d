//! Gated MLP: down(silu(gate(x)) · up(x)). Reference: `Qwen2MLP` and `Qwen2_5_VLMLP`.

use burn::{
    module::Module,
    nn::{Linear, LinearConfig},
    tensor::{Device, Tensor, activation::silu},
};

/// The three projections, with biases in the vision encoder and without in the decoder.
#[derive(Module, Debug)]
pub struct GatedMlp {
    pub(crate) gate_proj: Linear,
    pub(crate) up_proj: Linear,
    pub(crate) down_proj: Linear,
}

impl GatedMlp {
    pub(crate) fn new(width: usize, inner: usize, bias: bool, device: &Device) -> Self {
        let linear = |from, to| LinearConfig::new(from, to).with_bias(bias).init(device);
        Self { gate_proj: linear(width, inner), up_proj: linear(width, inner), down_proj: linear(inner, width) }
    }

    /// `[.., width]` to `[.., width]`.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.down_proj.forward(silu(self.gate_proj.forward(x.clone())) * self.up_proj.forward(x))
    }
}
