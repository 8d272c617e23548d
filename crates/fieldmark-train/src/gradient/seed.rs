//! Starts a backward pass at a tensor with a gradient that is known.
//!
//! Burn's backward pass starts at a scalar, so the plain way is that of `sum(y · grad)`, which makes three tensors of
//! the size of y, on one core on Flex. There, an operation whose backward pass is to hand over the gradient does it
//! without any, and y's memory can become the gradient.

use burn::tensor::{Gradients, Tensor};

/// Runs the backward pass of `sum(y · grad)`. `grad` has no tape.
pub(super) fn seeded<const D: usize>(y: Tensor<D>, grad: Tensor<D>) -> Gradients {
    seed(y, |_| grad).backward()
}

/// Returns a number whose backward pass is that of `sum(y · gradient(y))` with `gradient(y)` as a constant. Its value is
/// meaningless. Numbers of several tensors can be added. `gradient` gets y without a tape, and alone if the caller keeps
/// no other handle.
pub(super) fn seed<const D: usize>(y: Tensor<D>, gradient: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<1> {
    #[cfg(feature = "flex")]
    let (y, gradient) = match flex::seed(y, gradient) {
        Ok(seed) => return seed,
        Err(both) => both,
    };
    let grad = gradient(y.clone().inner());
    (y * grad.autodiff()).sum()
}

#[cfg(feature = "flex")]
mod flex {
    use burn::{
        backend::{Flex, flex::FlexTensor},
        tensor::Tensor,
    };
    use fieldmark_model::host::{Kept, put_on_tape, taken_from_tape};

    /// The gradient of the tensor that the backward pass starts at.
    #[derive(Debug, Clone)]
    struct Seed(FlexTensor);

    impl Kept<1> for Seed {
        fn gradients(self, _grad: FlexTensor, _needed: [bool; 1]) -> [Option<FlexTensor>; 1] {
            [Some(self.0)]
        }
    }

    /// Gives its arguments back if `y` is not on a tape of Flex.
    #[allow(clippy::result_large_err, reason = "such an error is not one: it gives the tensor back")]
    pub(super) fn seed<const D: usize, F>(y: Tensor<D>, gradient: F) -> Result<Tensor<1>, (Tensor<D>, F)>
    where
        F: FnOnce(Tensor<D>) -> Tensor<D>,
    {
        let (y, node) = match taken_from_tape(y) {
            Ok(taken) => taken,
            Err(y) => return Err((y, gradient)),
        };
        let grad = gradient(Tensor::from_primitive::<Flex>(y));
        let value = FlexTensor::zeros([1].into(), grad.dtype());
        let grad =
            grad.try_into_primitive::<Flex>().expect("a gradient is on the device of its tensor, without a tape");
        Ok(put_on_tape([node], Seed(grad), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};
    #[cfg(feature = "flex")]
    use fieldmark_model::host::HostTensor;

    #[test]
    fn the_backward_pass_is_that_of_the_sum_of_products() {
        let device = Device::default().autodiff();
        let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Default, &device.clone().inner());
        let (x, w, grad) = (random([5, 4]), random([4, 3]), random([5, 3]));
        let leaves = || (x.clone().autodiff().require_grad(), w.clone().autodiff().require_grad());
        let of = |leaf: &Tensor<2>, grads: &Gradients| leaf.grad(grads).unwrap().into_data();

        let (x1, w1) = leaves();
        let plain = (x1.clone().matmul(w1.clone()) * grad.clone().autodiff()).sum().backward();
        let (x2, w2) = leaves();
        let found = seeded(x2.clone().matmul(w2.clone()), grad.clone());
        assert_eq!(of(&x2, &found), of(&x1, &plain));
        assert_eq!(of(&w2, &found), of(&w1, &plain));

        // Two seeds on one tape, the second a function of the value.
        let (x1, w1) = leaves();
        let y = x1.clone().matmul(w1.clone());
        let plain = (y.clone().tanh() * grad.clone().autodiff() + y.clone() * y.detach().square()).sum().backward();
        let (x2, w2) = leaves();
        let y = x2.clone().matmul(w2.clone());
        let found = (seed(y.clone().tanh(), |_| grad) + seed(y, |y| y.square())).backward();
        x2.grad(&found).unwrap().into_data().assert_approx_eq::<f32>(&of(&x1, &plain), Default::default());
        w2.grad(&found).unwrap().into_data().assert_approx_eq::<f32>(&of(&w1, &plain), Default::default());
    }

    #[cfg(feature = "flex")]
    #[test]
    fn the_tensor_lends_its_memory_to_the_gradient() {
        let device = Device::flex().autodiff();
        let x = Tensor::<1>::ones([3], &device).require_grad();
        let place = |y: Tensor<1>| HostTensor::of(y).ok().unwrap().values_mut().as_ptr();
        let y = x.clone() * 2.0;
        let of_y = HostTensor::of(y.clone().inner()).ok().unwrap().values().as_ptr();
        let mut found = None;
        let seed = seed(y, |y| {
            found = Some(place(y));
            Tensor::from_floats([1.0, 2.0, 3.0], &Device::flex())
        });
        assert_eq!((found, seed.to_data().iter::<f32>().next()), (Some(of_y), Some(0.0)));
        assert_eq!(x.grad(&seed.backward()).unwrap().into_data().iter::<f32>().collect::<Vec<_>>(), [2.0, 4.0, 6.0]);
    }
}
