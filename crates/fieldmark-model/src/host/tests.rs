//! Results and gradients of the operations with a backward pass of their own are those of Burn's.

use burn::{
    nn::RmsNormConfig,
    tensor::{DType, Device, Distribution, Tensor, activation::silu},
};

use super::{rms_norm, silu_gate, times_transposed};

fn random<const D: usize>(shape: [usize; D], scale: f64) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, scale), &Device::flex())
}

/// Result and gradients of `operation`, for a loss that weighs each value of the result differently.
fn with_gradients<const D: usize, const E: usize>(
    a: &Tensor<D>,
    b: &Tensor<E>,
    grad: &Tensor<D>,
    operation: impl FnOnce(Tensor<D>, Tensor<E>) -> Tensor<D>,
) -> (Tensor<D>, Tensor<D>, Tensor<E>) {
    let (a, b) = (a.clone().autodiff().require_grad(), b.clone().autodiff().require_grad());
    let y = operation(a.clone(), b.clone());
    let grads = (y.clone() * grad.clone().autodiff()).sum().backward();
    (y.inner(), a.grad(&grads).unwrap(), b.grad(&grads).unwrap())
}

fn close<const D: usize>(found: Tensor<D>, expected: Tensor<D>, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let expected = expected.cast(DType::F64);
    let scale: f64 = expected.clone().abs().max().into_scalar();
    let apart: f64 = (found.cast(DType::F64) - expected).abs().max().into_scalar();
    assert!(apart <= 2e-6 * scale, "{what}: {apart} of {scale}");
}

#[test]
fn the_norm_is_burns() {
    for (rows, width, scale) in [(1, 5, 1.0), (70, 33, 1.0), (100, 256, 30.0), (33, 768, 1e-3)] {
        let (x, grad, gamma) = (random([2, rows, width], scale), random([2, rows, width], 1.0), random([width], 1.0));
        let epsilon = 1e-6;
        let norm = |x: Tensor<3>, gamma: Tensor<1>| {
            let mut norm = RmsNormConfig::new(width).with_epsilon(epsilon).init(&x.device());
            norm.gamma = burn::module::Param::from_tensor(gamma);
            norm.forward(x)
        };
        // Burn's in f64.
        let wide = |x: Tensor<3>| x.cast(DType::F64);
        let gamma_wide = gamma.clone().cast(DType::F64);
        let expected = with_gradients(&wide(x.clone()), &gamma_wide, &wide(grad.clone()), |x, gamma| {
            let rms = (x.clone().square().mean_dim(2) + epsilon).sqrt();
            x / rms * gamma.unsqueeze()
        });
        let found = with_gradients(&x, &gamma, &grad, |x, gamma| rms_norm(x, gamma, epsilon).unwrap());
        let what = format!("{rows} x {width}");
        close(found.0.clone(), expected.0.clone(), &what);
        close(found.1, expected.1, &what);
        close(found.2, expected.2, &what);
        close(norm(x.clone(), gamma.clone()), expected.0, &what);
        let plain = rms_norm(x.clone().swap_dims(0, 1), gamma, epsilon).unwrap().swap_dims(0, 1);
        close(plain, found.0, &what);
    }
}

#[test]
fn the_gate_is_burns() {
    for (rows, width, scale) in [(1, 1, 1.0), (30, 777, 3.0), (5, 64, 100.0)] {
        let [a, b, grad] = [scale, 1.0, 1.0].map(|scale| random([rows, width], scale));
        let wide = |x: &Tensor<2>| x.clone().cast(DType::F64);
        let expected = with_gradients(&wide(&a), &wide(&b), &wide(&grad), |a, b| silu(a) * b);
        let found = with_gradients(&a, &b, &grad, |a, b| silu_gate(a, b).unwrap());
        close(found.0.clone(), expected.0, "result");
        close(found.1, expected.1, "gate");
        close(found.2, expected.2, "up");
        let kept = a.clone();
        close(silu_gate(a, b.clone()).unwrap(), found.0.clone(), "shared");
        close(silu_gate(kept, b).unwrap(), found.0, "alone");
    }
}

#[test]
fn a_product_with_a_transposed_matrix_leaves_its_gradient_in_order() {
    let (x, w, grad) = (random([20, 7], 1.0), random([11, 7], 1.0), random([20, 11], 1.0));
    let run = |product: fn(Tensor<2>, Tensor<2>) -> Tensor<2>| {
        let (x, w) = (x.clone().autodiff().require_grad(), w.clone().autodiff().require_grad());
        let y = product(x.clone(), w.clone());
        let grads = (y.clone() * grad.clone().autodiff()).sum().backward();
        (y.inner(), x.grad(&grads).unwrap(), w.grad(&grads).unwrap())
    };
    let expected = run(|x, w| x.matmul(w.transpose()));
    let found = run(|x, w| times_transposed(x, w).unwrap());
    close(found.0, expected.0, "result");
    close(found.1, expected.1, "states");
    close(found.2.clone(), expected.2, "matrix");
    assert!(found.2.try_into_primitive::<burn::backend::Flex>().unwrap().is_contiguous());
}

#[test]
fn without_a_tape_on_both_sides_or_in_f64_the_tensors_come_back() {
    let (x, gamma) = (random([3, 4], 1.0), random([4], 1.0));
    assert!(rms_norm(x.clone().autodiff(), gamma.clone(), 1e-6).is_err());
    assert!(rms_norm(x.clone().cast(DType::F64), gamma, 1e-6).is_err());
    assert!(silu_gate(x.clone(), x.clone().autodiff()).is_err());
    assert!(times_transposed(x.clone(), x).is_err());
}
