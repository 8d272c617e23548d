//! Root mean square norm, y = x / √(mean x² + eps) · γ, forward and backward in one pass over rows each.
//!
//! With r = 1 / √(mean x² + eps), n values in a row and h = g ∘ γ for the gradient g of y:
//! `dx = r · (h − x · r² · Σ(h ∘ x) / n)`, `dγ = Σ over rows of g ∘ x · r`.

use burn::{
    backend::flex::FlexTensor,
    tensor::{DType, Tensor},
};
use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    HostTensor, LANES,
    tape::{Kept, put_on_tape, taken_from_tape},
};

/// Number of rows that a core works on at a time. The sums over rows do not depend on the number of cores.
const ROWS: usize = 32;

/// Applies the norm with weights `gamma` to each row of `x`.
///
/// # Errors
/// Returns `x` if one of the tensors is not an f32 tensor of the CPU backend, or only one has autodiff.
pub fn rms_norm<const D: usize>(x: Tensor<D>, gamma: Tensor<1>, epsilon: f64) -> Result<Tensor<D>, Tensor<D>> {
    if x.dtype() != DType::F32 || gamma.dtype() != DType::F32 || x.is_autodiff() != gamma.is_autodiff() {
        return Err(x);
    }
    if !x.is_autodiff() {
        let x = HostTensor::of(x)?;
        let gamma = HostTensor::of(gamma).expect("the weights are on the device of the input");
        return Ok(forward(&x, &gamma, epsilon).into_tensor());
    }
    let (x, x_node) = taken_from_tape(x)?;
    let (gamma, gamma_node) = taken_from_tape(gamma).expect("the weights are on the tape of the input");
    let (x, gamma) = (HostTensor::in_one_piece(x), HostTensor::in_one_piece(gamma));
    let y = forward(&x, &gamma, epsilon);
    let inputs = Inputs { x: x.into_flex(), gamma: gamma.into_flex(), epsilon };
    Ok(put_on_tape([x_node, gamma_node], inputs, y.into_flex()))
}

fn forward(x: &HostTensor, gamma: &HostTensor, epsilon: f64) -> HostTensor {
    let (gamma, mut y) = (gamma.values(), x.zeros_like());
    let size = ROWS * gamma.len();
    let rows = y.values_mut().par_chunks_mut(size).zip(x.values().par_chunks(size));
    rows.for_each(|(y, x)| norm_rows(x, gamma, epsilon, y));
    y
}

#[derive(Debug, Clone)]
struct Inputs {
    x: FlexTensor,
    gamma: FlexTensor,
    epsilon: f64,
}

impl Kept<2> for Inputs {
    fn gradients(self, grad: FlexTensor, _needed: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let [mut grad, x, gamma] = [grad, self.x, self.gamma].map(HostTensor::in_one_piece);
        let gamma_grad = differentiate(&x, &gamma, &mut grad, self.epsilon);
        [grad, gamma_grad].map(|grad| Some(grad.into_flex()))
    }
}

/// Replaces `grad`, the gradient of the result, by that of `x`, and returns that of `gamma`.
fn differentiate(x: &HostTensor, gamma: &HostTensor, grad: &mut HostTensor, epsilon: f64) -> HostTensor {
    let (weights, mut gamma_grad) = (gamma.values(), gamma.zeros_like());
    let size = ROWS * weights.len();
    let rows = grad.values_mut().par_chunks_mut(size).zip(x.values().par_chunks(size));
    let parts: Vec<Vec<f32>> = rows
        .map(|(grad, x)| {
            let mut part = vec![0.0; weights.len()];
            norm_rows_backward(x, weights, epsilon, grad, &mut part);
            part
        })
        .collect();
    for part in parts {
        gamma_grad.values_mut().iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }
    gamma_grad
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn norm_rows(x: &[f32], gamma: &[f32], epsilon: f64, y: &mut [f32]) {
    let width = gamma.len();
    for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
        let r = (1.0 / (dot(x, x) / width as f64 + epsilon).sqrt()) as f32;
        for ((y, x), gamma) in y.iter_mut().zip(x).zip(gamma) {
            *y = x * r * gamma;
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn norm_rows_backward(x: &[f32], gamma: &[f32], epsilon: f64, grad: &mut [f32], gamma_grad: &mut [f32]) {
    let width = gamma.len();
    for (x, grad) in x.chunks_exact(width).zip(grad.chunks_exact_mut(width)) {
        let r = 1.0 / (dot(x, x) / width as f64 + epsilon).sqrt();
        let r32 = r as f32;
        for (((grad, x), gamma), sum) in grad.iter_mut().zip(x).zip(gamma).zip(gamma_grad.iter_mut()) {
            *sum += *grad * (x * r32);
            *grad *= gamma;
        }
        let share = (dot(grad, x) * r * r / width as f64) as f32;
        grad.iter_mut().zip(x).for_each(|(grad, x)| *grad = r32 * (*grad - x * share));
    }
}

/// Σ a ∘ b of a row, of at most a few thousand values.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    a.iter().zip(b).for_each(|(a, b)| (0..LANES).for_each(|lane| lanes[lane] += a[lane] * b[lane]));
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| f64::from(a * b));
    lanes.iter().map(|&x| f64::from(x)).chain(rest).sum()
}
