//! A linear layer with an optional low-rank adapter: y = x·W + b + s·(x·A)·B (LoRA, arXiv 2106.09685). W under an
//! adapter may be quantised (QLoRA, arXiv 2305.14314).
//!
//! Burn's LoRA adds A·B to W at each use, which costs a matrix the size of W, and its gradient, for every layer. Here
//! (x·A)·B is computed, so no such matrix exists.

use burn::{
    module::{Module, Param},
    nn::{Linear, LinearConfig},
    tensor::{DType, Device, Tensor, module::linear, quantization::QuantScheme},
};

/// A linear layer. W is `[in, out]`, as in Burn's `Linear`.
#[derive(Module, Debug)]
pub struct Projection {
    pub(crate) weight: Param<Tensor<2>>,
    pub(crate) bias: Option<Param<Tensor<1>>>,
    pub(crate) lora: Option<LoraPair>,
}

/// The two factors of an adapter. Reference: `lora_A` and `lora_B` of PEFT, transposed.
#[derive(Module, Debug)]
pub struct LoraPair {
    /// `[in, rank]`.
    pub(crate) a: Param<Tensor<2>>,
    /// `[rank, out]`.
    pub(crate) b: Param<Tensor<2>>,
    /// Factor applied to the product A·B.
    pub(crate) scale: f64,
}

impl Projection {
    /// Returns a layer without an adapter. Burn initialises its parameters at first use.
    pub fn new(from: usize, to: usize, bias: bool, device: &Device) -> Self {
        let Linear { weight, bias } = LinearConfig::new(from, to).with_bias(bias).init(device);
        Self { weight, bias, lora: None }
    }

    /// Maps `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = match self.weight.dtype() {
            DType::QFloat(_) => dense(self.weight.val(), x.dtype()),
            _ => self.weight.val(),
        };
        let bias = self.bias.as_ref().map(Param::val);
        let Some(LoraPair { a, b, scale }) = &self.lora else { return linear(x, weight, bias) };
        // Scaled here, where the tensor is smallest.
        let low = linear(x.clone(), a.val(), None) * *scale;
        linear(x, weight, bias) + linear(low, b.val(), None)
    }

    /// Returns the input width and the output width.
    pub fn widths(&self) -> [usize; 2] {
        self.weight.shape().dims()
    }

    /// Returns the type of the weights or, if they are quantised, of the adapter.
    pub fn dtype(&self) -> DType {
        match (self.weight.dtype(), &self.lora) {
            (DType::QFloat(_), Some(pair)) => pair.a.dtype(),
            (dtype, _) => dtype,
        }
    }

    /// Adds an adapter whose factors are zero, in the type of the weights. Replaces any earlier adapter.
    pub fn with_lora(mut self, rank: usize, scale: f64) -> Self {
        let ([from, to], device) = (self.widths(), self.weight.device());
        let options = (&device, self.dtype());
        self.lora = Some(LoraPair {
            a: Param::from_tensor(Tensor::zeros([from, rank], options)),
            b: Param::from_tensor(Tensor::zeros([rank, to], options)),
            scale,
        });
        self
    }

    /// Quantises W with `scheme` and freezes it.
    pub fn quantized(mut self, scheme: &QuantScheme) -> Self {
        self.weight = self.weight.set_require_grad(false).map(|weight| weight.quantize_dynamic(scheme));
        self
    }

    /// Replaces W by W + s·A·B, computed in f32 and stored as `dtype`, and removes the adapter. Autodiff does not track
    /// this.
    pub(crate) fn merged(self, dtype: DType) -> Self {
        let Self { weight, bias, lora } = self;
        let weight = weight.map(|weight| {
            let weight = dense(weight, DType::F32);
            let weight = match &lora {
                Some(LoraPair { a, b, scale }) => {
                    weight + a.val().cast(DType::F32).matmul(b.val().cast(DType::F32)) * *scale
                }
                None => weight,
            };
            weight.cast(dtype)
        });
        Self { weight, bias, lora: None }
    }
}

/// Returns a matrix, dequantised if need be, as `dtype`.
fn dense(weight: Tensor<2>, dtype: DType) -> Tensor<2> {
    match weight.dtype() {
        DType::QFloat(_) => weight.dequantize().cast(dtype),
        _ => weight.cast(dtype),
    }
}
