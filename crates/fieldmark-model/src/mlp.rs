//! Gated MLP: down(silu(gate(x)) · up(x)). Reference: `Qwen2MLP` and `Qwen2_5_VLMLP`.

use burn::{
    module::Module,
    tensor::{Device, Tensor, activation::silu},
};

use crate::{host, projection::Projection};

/// The three projections. They have biases in the vision encoder and none in the decoder.
#[derive(Module, Debug)]
pub struct GatedMlp {
    pub(crate) gate_proj: Projection,
    pub(crate) up_proj: Projection,
    pub(crate) down_proj: Projection,
}

impl GatedMlp {
    pub(crate) fn new(width: usize, inner: usize, bias: bool, device: &Device) -> Self {
        let linear = |from, to| Projection::new(from, to, bias, device);
        Self { gate_proj: linear(width, inner), up_proj: linear(width, inner), down_proj: linear(inner, width) }
    }

    pub(crate) fn projections_mut(&mut self) -> [(&'static str, &mut Projection); 3] {
        [("gate_proj", &mut self.gate_proj), ("up_proj", &mut self.up_proj), ("down_proj", &mut self.down_proj)]
    }

    /// Maps `[.., width]` to `[.., width]`.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.down_proj.forward(gate(self.gate_proj.forward(x.clone()), self.up_proj.forward(x)))
    }
}

/// Returns `silu(a) · b`.
fn gate<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    host::silu_gate(a, b).unwrap_or_else(|[a, b]| silu(a) * b)
}
