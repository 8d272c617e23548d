//! AdamW's step in ordinary memory: one pass over weights, moments and gradients, in place, on all cores.
//!
//! Per value, in f32 and in the order of Burn's AdamW, so the results have the same bits:
//! `m = m·b1 + g·(1 − b1)`, `v = v·b2 + g²·(1 − b2)`, `p = p·(1 − lr·wd) − (m / c1) / (√(v / c2) + eps) · lr`.
//! Values of 16 bits are widened before and rounded after.

use fieldmark_model::host::{Floats, HostTensor};
use multiversion::multiversion;
use rayon::prelude::*;

/// Number of values that a core works on at a time. Widened, they fit the first-level cache.
const PIECE: usize = 2048;

/// Decay rates and constants of AdamW.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    pub(super) beta1: f32,
    pub(super) beta2: f32,
    pub(super) eps: f32,
    pub(super) weight_decay: f32,
}

/// What holds the exact weight.
pub(super) enum Exact {
    /// The weight itself.
    Weight,
    /// A copy in f32.
    Master(HostTensor),
    /// The weight and its rounding error, in the weight's type.
    Lost(HostTensor),
}

/// The tensors of a step of one parameter, all of one shape.
pub(super) struct HostStep {
    pub(super) weight: HostTensor,
    pub(super) exact: Exact,
    pub(super) moment_1: HostTensor,
    pub(super) moment_2: HostTensor,
    pub(super) grad: HostTensor,
}

impl HostStep {
    /// Makes step number `time`, counted from 1. The gradient is used up.
    pub(super) fn run(&mut self, rates: &Rates, lr: f64, time: usize) {
        let factors = Factors::new(rates, lr, time);
        let (master, lost) = match &mut self.exact {
            Exact::Weight => (None, None),
            Exact::Master(master) => (Some(master.floats_mut()), None),
            Exact::Lost(lost) => (None, Some(lost.floats_mut())),
        };
        let mut rest = Piece {
            weight: self.weight.floats_mut(),
            master,
            lost,
            m: self.moment_1.floats_mut(),
            v: self.moment_2.floats_mut(),
            grad: self.grad.floats_mut(),
        };
        let mut pieces = Vec::with_capacity(rest.weight.len().div_ceil(PIECE));
        while rest.weight.len() > PIECE {
            let (piece, others) = rest.split();
            pieces.push(piece);
            rest = others;
        }
        pieces.push(rest);
        pieces.into_par_iter().for_each(|piece| piece.step(&factors));
    }
}

/// The numbers that a step multiplies and divides by.
struct Factors {
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    correction1: f32,
    correction2: f32,
    eps: f32,
    keep: f32,
    lr: f32,
}

impl Factors {
    fn new(rates: &Rates, lr: f64, time: usize) -> Self {
        let &Rates { beta1, beta2, eps, weight_decay } = rates;
        let time = time as i32;
        Self {
            beta1,
            rest1: 1.0 - beta1,
            beta2,
            rest2: 1.0 - beta2,
            correction1: 1.0 - beta1.powi(time),
            correction2: 1.0 - beta2.powi(time),
            eps,
            keep: (1.0 - lr * f64::from(weight_decay)) as f32,
            lr: lr as f32,
        }
    }
}

/// The same few values of each tensor.
struct Piece<'a> {
    weight: Floats<'a>,
    master: Option<Floats<'a>>,
    lost: Option<Floats<'a>>,
    m: Floats<'a>,
    v: Floats<'a>,
    grad: Floats<'a>,
}

impl Piece<'_> {
    fn split(self) -> (Self, Self) {
        let optional = |floats: Option<_>| match floats.map(|floats: Floats<'_>| floats.split_at(PIECE)) {
            Some((first, rest)) => (Some(first), Some(rest)),
            None => (None, None),
        };
        let (weight, weights) = self.weight.split_at(PIECE);
        let (master, masters) = optional(self.master);
        let (lost, losts) = optional(self.lost);
        let (m, ms) = self.m.split_at(PIECE);
        let (v, vs) = self.v.split_at(PIECE);
        let (grad, grads) = self.grad.split_at(PIECE);
        let first = Self { weight, master, lost, m, v, grad };
        (first, Self { weight: weights, master: masters, lost: losts, m: ms, v: vs, grad: grads })
    }

    fn step(self, factors: &Factors) {
        match self {
            Piece {
                weight: Floats::F32(weight),
                master: None,
                lost: None,
                m: Floats::F32(m),
                v: Floats::F32(v),
                grad: Floats::F32(grad),
            } => step(weight, m, v, grad, factors),
            piece => piece.step_widened(factors),
        }
    }

    fn step_widened(mut self, factors: &Factors) {
        let mut buffers = [[0f32; PIECE]; 5];
        let [exact, m, v, grad, lost] = buffers.each_mut().map(|buffer| &mut buffer[..self.weight.len()]);
        match (&self.master, &self.lost) {
            (Some(master), _) => master.load(exact),
            (None, Some(found)) => {
                self.weight.load(exact);
                found.load(lost);
                exact.iter_mut().zip(&*lost).for_each(|(exact, lost)| *exact += lost);
            }
            (None, None) => self.weight.load(exact),
        }
        self.m.load(m);
        self.v.load(v);
        self.grad.load(grad);
        step(exact, m, v, grad, factors);
        self.weight.store(exact);
        self.m.store(m);
        self.v.store(v);
        if let Some(master) = &mut self.master {
            master.store(exact);
        } else if let Some(kept) = &mut self.lost {
            self.weight.load(lost);
            exact.iter_mut().zip(&*lost).for_each(|(exact, rounded)| *exact -= rounded);
            kept.store(exact);
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl", "x86_64+avx2"))]
fn step(exact: &mut [f32], m: &mut [f32], v: &mut [f32], grad: &[f32], factors: &Factors) {
    let f = factors;
    for (((p, m), v), &g) in exact.iter_mut().zip(m).zip(v).zip(grad) {
        *m = *m * f.beta1 + g * f.rest1;
        *v = *v * f.beta2 + g * g * f.rest2;
        let delta = (*m / f.correction1) / ((*v / f.correction2).sqrt() + f.eps);
        *p = *p * f.keep - delta * f.lr;
    }
}
