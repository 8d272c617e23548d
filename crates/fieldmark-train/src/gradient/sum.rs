//! Sums of gradients over micro-batches and over the tapes of one pass, parameter by parameter. Half-precision
//! gradients are summed in f32. Deviation from the released code, which sums in bf16: over 80 micro-batches, every
//! addend below 1/256 of the sum is lost there.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{DType, FloatDType, Gradients, Tensor},
};
use fieldmark_model::host::{self, HostTensor};

/// A sum of gradients. Unlike Burn's accumulator, it accepts gradients of any module, for example of a single block.
#[derive(Default)]
pub struct GradientSum {
    sum: GradientsParams,
}

impl GradientSum {
    /// Makes an empty sum.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the gradients of the parameters of `module`. Other gradients in `grads` are ignored.
    pub fn add<M: Module>(&mut self, module: &M, mut grads: GradientsParams) {
        module.visit(&mut Add { sum: &mut self.sum, grads: &mut grads });
    }

    /// Adds the gradients of the parameters of `module` from a backward pass.
    pub fn add_from<M: Module>(&mut self, module: &M, grads: &mut Gradients) {
        self.add(module, GradientsParams::from_module(grads, module));
    }

    /// Returns the sum.
    pub fn into_grads(self) -> GradientsParams {
        self.sum
    }
}

struct Add<'a> {
    sum: &'a mut GradientsParams,
    grads: &'a mut GradientsParams,
}

impl ModuleVisitor for Add<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.grads.remove::<D>(param.id) else { return };
        let grad = match grad.dtype() {
            DType::F16 | DType::BF16 => grad.cast(FloatDType::F32),
            _ => grad,
        };
        let sum = match self.sum.remove::<D>(param.id) {
            Some(sum) => added(sum, grad),
            None => grad,
        };
        self.sum.register(param.id, sum);
    }
}

/// Returns the sum of two tensors of one shape and type; on the CPU in the memory of the first.
fn added<const D: usize>(sum: Tensor<D>, grad: Tensor<D>) -> Tensor<D> {
    match (HostTensor::of(sum), HostTensor::of(grad)) {
        (Ok(mut sum), Ok(grad)) => {
            host::add(sum.values_mut(), grad.values());
            sum.into_tensor()
        }
        (sum, grad) => tensor_of(sum) + tensor_of(grad),
    }
}

fn tensor_of<const D: usize>(x: Result<HostTensor, Tensor<D>>) -> Tensor<D> {
    x.map_or_else(|x| x, HostTensor::into_tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::{
        nn::{Linear, LinearConfig},
        tensor::Device,
    };

    fn grads(linear: &Linear, value: f64, dtype: DType) -> GradientsParams {
        let mut grads = GradientsParams::new();
        grads.register(linear.weight.id, Tensor::<2>::full([1, 1], value, (&Device::default(), dtype)));
        grads
    }

    #[test]
    fn small_gradients_in_bf16_are_not_lost_and_other_modules_are_left_out() {
        let layer = || LinearConfig::new(1, 1).with_bias(false).init(&Device::default());
        let (one, other): (Linear, Linear) = (layer(), layer());
        let mut sum = GradientSum::new();
        sum.add(&one, grads(&one, 256.0, DType::BF16));
        for _ in 0..3 {
            sum.add(&one, grads(&one, 0.5, DType::BF16));
        }
        sum.add(&other, grads(&one, 1e6, DType::BF16));
        let sum = sum.into_grads();
        assert_eq!(sum.get::<2>(one.weight.id).unwrap().into_scalar::<f32>(), 257.5);
        assert_eq!(sum.len(), 1);
    }
}
