//! Clipping by the global gradient norm, as in `torch.nn.utils.clip_grad_norm_`: every gradient is multiplied by
//! `min(1, max_norm / (norm + 1e-6))`, with the norm over all parameters together. A norm that is not finite skips the
//! update. Burn's own clipping works per parameter.

use std::marker::PhantomData;

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{DType, FloatDType, Tensor},
};

use fieldmark_model::host::{self, HostTensor};

use crate::TrainError;

const EPSILON: f64 = 1e-6;

/// Result of clipping.
pub(crate) enum Clipped {
    /// The optimiser can make its step.
    Ready {
        /// The clipped gradients.
        grads: GradientsParams,
        /// Global norm before clipping.
        norm: f64,
    },
    /// The norm is NaN or infinite: skip the step.
    Skipped {
        /// The global norm.
        norm: f64,
    },
}

/// Clips gradients by their global norm.
#[derive(Debug, Clone)]
pub(crate) struct GradClipper {
    max_norm: f64,
}

impl GradClipper {
    /// Makes a clipper for a largest norm of `max_norm` (1.0 in both stages). Infinity turns clipping off.
    ///
    /// # Errors
    /// Returns an error if `max_norm` is not positive.
    pub fn new(max_norm: f64) -> Result<Self, TrainError> {
        if max_norm > 0.0 {
            Ok(Self { max_norm })
        } else {
            let expected = "above 0, because gradients are scaled down to it; `inf` turns clipping off";
            Err(TrainError::Setting { key: "max_grad_norm", value: max_norm.to_string(), expected })
        }
    }

    /// Clips the gradients of `module`'s parameters.
    pub fn clip<M: Module>(&self, mut grads: GradientsParams, module: &M) -> Clipped {
        let norm = grad_norm(&grads, module);
        if !norm.is_finite() {
            return Clipped::Skipped { norm };
        }
        let factor = self.max_norm / (norm + EPSILON);
        if factor < 1.0 {
            module.visit(&mut Scale { grads: &mut grads, factor });
        }
        Clipped::Ready { grads, norm }
    }
}

/// Euclidean norm of the gradients of all parameters of `module`, taken as one vector. 0 if there are none.
pub fn grad_norm<M: Module>(grads: &GradientsParams, module: &M) -> f64 {
    let mut squares = Squares { grads, on_host: 0.0, elsewhere: Vec::new(), module: PhantomData::<M> };
    module.visit(&mut squares);
    let Squares { on_host, elsewhere, .. } = squares;
    if elsewhere.is_empty() {
        return on_host.sqrt();
    }
    let elsewhere: f64 = Tensor::cat(elsewhere, 0).into_data().iter::<f64>().sum();
    (on_host + elsewhere).sqrt()
}

struct Squares<'a, M> {
    grads: &'a GradientsParams,
    /// Sum over the tensors that are in ordinary memory.
    on_host: f64,
    /// Sum of each other tensor.
    elsewhere: Vec<Tensor<1>>,
    module: PhantomData<M>,
}

impl<M: Module> ModuleVisitor for Squares<'_, M> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            // In half precision the square would overflow or vanish.
            let grad = match grad.dtype() {
                DType::F16 | DType::BF16 => grad.cast(FloatDType::F32),
                _ => grad,
            };
            match HostTensor::of(grad) {
                Ok(grad) => self.on_host += host::sum_of_squares(grad.values()),
                Err(grad) => self.elsewhere.push(grad.square().sum()),
            }
        }
    }
}

struct Scale<'a> {
    grads: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            let grad = match HostTensor::of(grad) {
                Ok(mut grad) => {
                    host::scale(grad.values_mut(), self.factor as f32);
                    grad.into_tensor()
                }
                Err(grad) => grad * self.factor,
            };
            self.grads.register(param.id, grad);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::{nn::LinearConfig, tensor::Device};

    fn clipped(max_norm: f64, weight: [[f32; 2]; 1], bias: [f32; 2]) -> (Option<Vec<f32>>, f64) {
        let device = Device::default();
        let linear = LinearConfig::new(1, 2).init(&device);
        let bias_id = linear.bias.as_ref().unwrap().id;
        let mut grads = GradientsParams::new();
        grads.register(linear.weight.id, Tensor::<2>::from_floats(weight, &device));
        grads.register(bias_id, Tensor::<1>::from_floats(bias, &device));
        let clipper = GradClipper::new(max_norm).unwrap();
        match clipper.clip(grads, &linear) {
            Clipped::Skipped { norm } => (None, norm),
            Clipped::Ready { grads, norm } => {
                let mut all: Vec<f32> = grads.get::<2>(linear.weight.id).unwrap().into_data().iter().collect();
                all.extend(grads.get::<1>(bias_id).unwrap().into_data().iter::<f32>());
                (Some(all), norm)
            }
        }
    }

    #[test]
    fn the_norm_is_global_and_the_scaling_is_torchs() {
        let (grads, norm) = clipped(1.0, [[3.0, 0.0]], [0.0, -4.0]);
        assert!((norm - 5.0).abs() < 1e-12);
        let factor = 1.0 / (5.0 + 1e-6);
        let expected = [3.0 * factor, 0.0, 0.0, -4.0 * factor];
        for (g, e) in grads.unwrap().iter().zip(expected) {
            assert!((f64::from(*g) - e).abs() < 1e-7);
        }
    }

    #[test]
    fn small_gradients_pass_untouched() {
        let (grads, norm) = clipped(5.1, [[3.0, 0.0]], [0.0, -4.0]);
        assert_eq!(grads.unwrap(), [3.0, 0.0, 0.0, -4.0]);
        assert!((norm - 5.0).abs() < 1e-12);
    }

    #[test]
    fn non_finite_norms_skip() {
        for bad in [f32::NAN, f32::INFINITY] {
            let (grads, norm) = clipped(1.0, [[3.0, bad]], [0.0, 0.0]);
            assert!(grads.is_none() && !norm.is_finite());
        }
        assert!(GradClipper::new(0.0).is_err() && GradClipper::new(f64::NAN).is_err());
    }
}
