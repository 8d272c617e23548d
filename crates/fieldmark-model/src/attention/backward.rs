//! The backward pass of attention without autodiff, a few queries at a time (Dao et al. 2022, arXiv 2205.14135, B.2).
//!
//! With `P = softmax(scale · Q Kᵀ)` and `O = P V`: `dV = Pᵀ dO`, `dS = P ∘ (dO Vᵀ − rowsum(dO ∘ O))`,
//! `dQ = scale · dS K`, `dK = scale · dSᵀ Q`. P is recomputed for each chunk of queries, so only a few
//! `[heads, chunk, keys]` tensors exist at a time. A causal chunk skips the keys after it.

use burn::tensor::Tensor;

use super::{
    forward::{probabilities, scale},
    mask::AttentionMask,
};

/// Returns the gradients of `sum(attend(q, k, v) ∘ grad)` with respect to q, k and v, in their shapes.
///
/// * `q`, `out`, `grad`: `[batch, heads, queries, head_dim]`. `out` is the result of
///   [`attend`](crate::attention::attend); `grad` must be 0 at queries that see no key.
/// * `k`, `v`: `[batch, kv_heads, keys, head_dim]`.
/// * `chunk`: number of queries computed at a time; 0 computes all at once.
///
/// No tensor may be tracked by autodiff.
pub fn attention_backward(
    [q, k, v]: [Tensor<4>; 3],
    out: Tensor<4>,
    grad: Tensor<4>,
    mask: &AttentionMask,
    chunk: usize,
) -> [Tensor<4>; 3] {
    let [batch, heads, queries, dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let group = heads / kv_heads;
    let (scale, dtype) = (scale(&q), q.dtype());
    let chunk = if chunk == 0 { queries } else { chunk };
    let mut dq = Vec::new();
    let mut sums: Option<[Tensor<4>; 2]> = None;
    // The last chunk sees the most keys, so the sums have their full size from the start.
    for start in (0..queries).step_by(chunk).rev() {
        let count = chunk.min(queries - start);
        let (mask, seen) = mask.of_queries(start..start + count, keys);
        // [batch, heads, queries, dim] -> [batch, kv_heads, group · count, dim]
        let rows = |x: &Tensor<4>| {
            let x = if count == queries { x.clone() } else { x.clone().narrow(2, start, count) };
            x.reshape([batch, kv_heads, group * count, dim])
        };
        let seen_of = |x: &Tensor<4>| if seen == keys { x.clone() } else { x.clone().narrow(2, 0, seen) };
        let (k, v) = (seen_of(&k), seen_of(&v));
        let (q, grad) = (rows(&q) * scale, rows(&grad));
        let p = probabilities(q.clone().matmul(k.clone().transpose()), mask.grouped(group));
        let delta = (grad.clone().cast(p.dtype()) * rows(&out).cast(p.dtype())).sum_dim(3);
        let dp = grad.clone().matmul(v.transpose()).cast(p.dtype());
        let ds = (p.clone() * (dp - delta)).cast(dtype);
        let dv = p.cast(dtype).transpose().matmul(grad);
        let dk = ds.clone().transpose().matmul(q);
        dq.push((ds.matmul(k) * scale).reshape([batch, heads, count, dim]));
        sums = Some(match sums {
            None => [dk, dv],
            Some([sum_k, sum_v]) => [add_to_start(sum_k, dk), add_to_start(sum_v, dv)],
        });
    }
    dq.reverse();
    let dq = if dq.len() == 1 { dq.remove(0) } else { Tensor::cat(dq, 2) };
    let [dk, dv] = sums.unwrap_or_else(|| [k.zeros_like(), v.zeros_like()]);
    [dq, whole(dk, keys), whole(dv, keys)]
}

/// Adds `x` to the first keys of `sum`.
fn add_to_start(sum: Tensor<4>, x: Tensor<4>) -> Tensor<4> {
    let [batch, heads, count, dim] = x.dims();
    let place = [0..batch, 0..heads, 0..count, 0..dim];
    let first = sum.clone().slice(place.clone()) + x;
    sum.slice_assign(place, first)
}

/// Appends zeros for the keys that no query saw.
fn whole(x: Tensor<4>, keys: usize) -> Tensor<4> {
    let [batch, heads, count, dim] = x.dims();
    if count == keys {
        return x;
    }
    let rest = Tensor::zeros([batch, heads, keys - count, dim], (&x.device(), x.dtype()));
    Tensor::cat(vec![x, rest], 2)
}
