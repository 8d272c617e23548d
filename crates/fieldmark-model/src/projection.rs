//! A linear layer that may carry a low-rank adapter: y = x·W + b + s·(x·A)·B (LoRA, arXiv 2106.09685), and whose W may then
//! be quantised (QLoRA, arXiv 2305.14314).
//!
//! Burn's own LoRA adds A·B to W at each use, so that a matrix of W's size and its gradient exist for every layer; here the
//! product goes through the rank.

use burn::{
    module::{Module, Param},
    nn::{Linear, LinearConfig},
    tensor::{DType, Device, Tensor, module::linear, quantization::QuantScheme},
};

use crate::lora::{LoraSettings, Quantize};

/// W is `[in, out]`, as in Burn's `Linear`.
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
    /// What their product is multiplied by.
    pub(crate) scale: f64,
}

impl Projection {
    /// A layer without adapter, with Burn's initialisation at first use.
    pub fn new(from: usize, to: usize, bias: bool, device: &Device) -> Self {
        let Linear { weight, bias } = LinearConfig::new(from, to).with_bias(bias).init(device);
        Self { weight, bias, lora: None }
    }

    /// `[.., in]` to `[.., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = match self.weight.dtype() {
            DType::QFloat(_) => dense(self.weight.val(), x.dtype()),
            _ => self.weight.val(),
        };
        let bias = self.bias.as_ref().map(Param::val);
        let Some(LoraPair { a, b, scale }) = &self.lora else { return linear(x, weight, bias) };
        // Scaled where it is small.
        let low = linear(x.clone(), a.val(), None) * *scale;
        linear(x, weight, bias) + linear(low, b.val(), None)
    }

    /// Width of what goes in and of what comes out.
    pub fn widths(&self) -> [usize; 2] {
        self.weight.shape().dims()
    }

    /// The type of the weights, or of the adapter where they are quantised.
    pub fn dtype(&self) -> DType {
        match (self.weight.dtype(), &self.lora) {
            (DType::QFloat(_), Some(pair)) => pair.a.dtype(),
            (dtype, _) => dtype,
        }
    }

    /// The same with an adapter whose factors are zero, in the type of the weights; an earlier one goes.
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

    /// The same with an adapter of zeros and W kept as `settings` say. `None` if W cannot be quantised: it has no multiple of 4
    /// columns.
    pub fn adapted(self, settings: &LoraSettings) -> Option<Self> {
        let columns = self.widths()[1];
        let adapted = self.with_lora(settings.rank, settings.scale());
        match settings.quantize {
            Quantize::None => Some(adapted),
            quantize => quantize.scheme(columns).map(|scheme| adapted.quantized(&scheme)),
        }
    }

    /// The same with W rounded as `scheme` says; it no longer learns.
    pub fn quantized(mut self, scheme: &QuantScheme) -> Self {
        self.weight = self.weight.set_require_grad(false).map(|weight| weight.quantize_dynamic(scheme));
        self
    }

    /// The same with W + s·A·B for W, computed in f32 and stored as `dtype`, and no adapter. Without a tape.
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

/// The numbers of a matrix that may be quantised.
fn dense(weight: Tensor<2>, dtype: DType) -> Tensor<2> {
    match weight.dtype() {
        DType::QFloat(_) => weight.dequantize().cast(dtype),
        _ => weight.cast(dtype),
    }
}
