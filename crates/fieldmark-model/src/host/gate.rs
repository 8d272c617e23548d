//! The gate of a gated MLP, y = a · σ(a) · b, forward and backward in one pass each.
//!
//! For the gradient g of y and s = σ(a): `da = g · b · s · (1 + a · (1 − s))`, `db = g · a · s`.

use burn::{
    backend::flex::FlexTensor,
    tensor::{DType, Tensor},
};
use multiversion::multiversion;
use rayon::prelude::*;

use super::{
    HostTensor, exp_of_negative,
    tape::{Kept, put_on_tape, taken_from_tape},
};

/// Number of values that a core works on at a time.
const PIECE: usize = 8192;

/// Returns `silu(a) · b`.
///
/// # Errors
/// Returns both if one of them is not an f32 tensor of the CPU backend, or only one has autodiff.
pub fn silu_gate<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Result<Tensor<D>, [Tensor<D>; 2]> {
    if a.dtype() != DType::F32 || b.dtype() != DType::F32 || a.is_autodiff() != b.is_autodiff() {
        return Err([a, b]);
    }
    if !a.is_autodiff() {
        let mut a = match HostTensor::of(a) {
            Ok(a) => a,
            Err(a) => return Err([a, b]),
        };
        let b = HostTensor::of(b).expect("both factors are on one device");
        let pieces = a.values_mut().par_chunks_mut(PIECE).zip(b.values().par_chunks(PIECE));
        pieces.for_each(|(a, b)| gate_in_place(a, b));
        return Ok(a.into_tensor());
    }
    let (a, a_node) = match taken_from_tape(a) {
        Ok(taken) => taken,
        Err(a) => return Err([a, b]),
    };
    let (b, b_node) = taken_from_tape(b).expect("both factors are on one tape");
    let (a, b) = (HostTensor::in_one_piece(a), HostTensor::in_one_piece(b));
    let mut y = a.zeros_like();
    let factors = a.values().par_chunks(PIECE).zip(b.values().par_chunks(PIECE));
    y.values_mut().par_chunks_mut(PIECE).zip(factors).for_each(|(y, (a, b))| gate(a, b, y));
    Ok(put_on_tape([a_node, b_node], Factors { a: a.into_flex(), b: b.into_flex() }, y.into_flex()))
}

#[derive(Debug, Clone)]
struct Factors {
    a: FlexTensor,
    b: FlexTensor,
}

impl Kept<2> for Factors {
    fn gradients(self, grad: FlexTensor, _needed: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let [mut grad, a, mut b] = [grad, self.a, self.b].map(HostTensor::in_one_piece);
        let both = grad.values_mut().par_chunks_mut(PIECE).zip(b.values_mut().par_chunks_mut(PIECE));
        both.zip(a.values().par_chunks(PIECE)).for_each(|((grad, b), a)| gate_backward(a, b, grad));
        [grad, b].map(|grad| Some(grad.into_flex()))
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn gate(a: &[f32], b: &[f32], y: &mut [f32]) {
    y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (&a, &b))| *y = a * sigmoid(a) * b);
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn gate_in_place(a: &mut [f32], b: &[f32]) {
    a.iter_mut().zip(b).for_each(|(a, &b)| *a = *a * sigmoid(*a) * b);
}

/// Replaces `grad` by the gradient of `a`, and `b` by its own.
#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn gate_backward(a: &[f32], b: &mut [f32], grad: &mut [f32]) {
    for ((grad, b), &a) in grad.iter_mut().zip(b).zip(a) {
        let s = sigmoid(a);
        let g = *grad;
        *grad = g * *b * (s * (1.0 + a * (1.0 - s)));
        *b = g * (a * s);
    }
}

/// 1 / (1 + e⁻ˣ), from e^(−|x|), which does not overflow.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = exp_of_negative(-x.abs());
    (if x >= 0.0 { 1.0 } else { e }) / (1.0 + e)
}
