//! Draws on the CPU: each row is a few passes over its logits, and rows are shared among all cores.

use std::cell::RefCell;

use burn::tensor::{DType, Tensor};
use fieldmark_model::host;
use rayon::prelude::*;

use super::{Choice, RowState, Sampling, kernels};

/// Buffers of a thread, which rows reuse.
#[derive(Default)]
struct Scratch {
    /// Weight of each token, relative to the most likely one.
    exps: Vec<f32>,
    /// Sum of the weights of each block.
    sums: Vec<f64>,
    /// The largest logits, for top-k.
    largest: Vec<f32>,
    /// Tokens whose logits a penalty or ban replaced, with the logits from before.
    replaced: Vec<(usize, f32)>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Draws with one set of settings.
#[derive(Debug, Clone)]
pub(crate) struct HostSampler {
    pub(super) sampling: Sampling,
    pub(super) banned: Vec<u32>,
}

impl HostSampler {
    /// Chooses a token for each row of `logits_bv`.
    pub(super) fn next(&self, logits_bv: Tensor<2>, rows: &mut [RowState<'_>]) -> Vec<Choice> {
        let vocab = logits_bv.dims()[1];
        let mut logits = logits_bv.cast(DType::F32).into_data();
        let logits = logits.as_mut_slice::<f32>().expect("the tensor was cast to f32");
        let choose = |(logits, row): (&mut [f32], &mut RowState<'_>)| {
            SCRATCH.with_borrow_mut(|scratch| choose(&self.sampling, &self.banned, logits, row, scratch))
        };
        logits.par_chunks_mut(vocab).zip(rows).map(choose).collect()
    }
}

/// Chooses a token from one row of logits, in which penalties and bans are then entered.
fn choose(
    sampling: &Sampling,
    banned: &[u32],
    logits: &mut [f32],
    row: &mut RowState<'_>,
    scratch: &mut Scratch,
) -> Choice {
    let Scratch { exps, sums, largest, replaced } = scratch;
    let temperature = sampling.logp_temperature() as f32;
    let (max, finite) = host::largest(logits);
    if !finite {
        return Choice { token: 0, logp: f64::NAN };
    }
    let total = kernels::exponentials(logits, max, temperature, exps, sums);
    replace(sampling, banned, logits, row, replaced);
    let logp = |token: usize, logits: &[f32]| {
        let raw = replaced.iter().find(|(id, _)| *id == token).map_or(logits[token], |(_, raw)| *raw);
        f64::from(raw - max) / sampling.logp_temperature() - total.ln()
    };
    let best = if replaced.iter().any(|&(_, raw)| raw == max) {
        host::largest(logits).0
    } else {
        replaced.iter().fold(max, |best, &(token, _)| best.max(logits[token]))
    };
    if sampling.temperature == 0.0 {
        let token = logits.iter().position(|&x| x == best).unwrap_or(0);
        return Choice { token: token as u32, logp: logp(token, logits) };
    }
    let mut total = if best == max {
        let changed = replaced.iter().map(|&(token, _)| token);
        kernels::refresh(logits, max, temperature, changed, exps, sums)
    } else {
        kernels::exponentials(logits, best, temperature, exps, sums)
    };
    if sampling.top_k > 0 && sampling.top_k < logits.len() {
        let least = kernels::kth_largest(logits, sampling.top_k, largest);
        total = kernels::keep_from(logits, least, exps, sums);
    }
    let token = draw(sampling, logits, row, total, (exps, sums));
    Choice { token: token as u32, logp: logp(token, logits) }
}

/// Enters penalties and bans into the logits and notes what they replaced.
fn replace(
    sampling: &Sampling,
    banned: &[u32],
    logits: &mut [f32],
    row: &RowState<'_>,
    replaced: &mut Vec<(usize, f32)>,
) {
    replaced.clear();
    if sampling.repetition_penalty != 1.0 {
        for &token in row.seen {
            if let Some(logit) = logits.get_mut(token as usize) {
                replaced.push((token as usize, *logit));
                *logit = sampling.penalised(*logit);
            }
        }
    }
    for &token in banned {
        if let Some(logit) = logits.get_mut(token as usize) {
            replaced.push((token as usize, *logit));
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Draws a token from weights of the given total, of which the kept ones are those within top-p and min-p.
///
/// A token that is not kept ends no draw: all tokens up to it, in the order of their logits, are left out, and the next
/// draw is among the rest. The kept tokens are the last in that order, so each keeps its share of every draw.
fn draw(
    sampling: &Sampling,
    logits: &[f32],
    row: &mut RowState<'_>,
    total: f64,
    (exps, sums): (&mut [f32], &mut [f64]),
) -> usize {
    let least_mass = (1.0 - sampling.top_p) * total;
    let mut left = total;
    loop {
        let token = kernels::token_at(row.stream.uniform() * left, exps, sums);
        let likely = f64::from(exps[token]) >= sampling.min_p;
        if likely && sampling.top_p == 1.0 {
            return token;
        }
        let above = kernels::keep_above(logits, token, exps, sums);
        if above == 0.0 || likely && total - above > least_mass {
            return token;
        }
        left = above;
    }
}
