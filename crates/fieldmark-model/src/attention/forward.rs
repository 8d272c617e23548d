//! Scaled dot-product attention with grouped key and value heads, which are never expanded.
//!
//! Query heads that share a key head are stacked along the query axis, `[batch, kv_heads, group · seq, head_dim]`, so
//! one batched product serves the whole group on every backend. Without autodiff, the backend's fused attention runs.
//! With autodiff, the products are written out, because Burn's fused attention has no backward pass.

use burn::tensor::{Bool, DType, FloatDType, Tensor, activation::softmax, module::attention};

use super::mask::AttentionMask;

/// Number of queries of a causal batch that fused attention computes at a time. For a long sequence, a mask for all
/// queries and all heads that share keys would be the largest tensor. In chunks, the first queries also skip the last
/// keys.
pub const CAUSAL_CHUNK: usize = 512;

/// Computes attention of `q`, `[batch, heads, queries, head_dim]`, over `k` and `v`,
/// `[batch, kv_heads, keys, head_dim]`.
///
/// Returns `[batch, heads, queries, head_dim]`. If a query may see no key, its result is arbitrary but finite, never
/// NaN.
pub fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: &AttentionMask) -> Tensor<4> {
    let (queries, keys) = (q.dims()[2], k.dims()[2]);
    if q.is_autodiff() || !mask.is_causal() || queries <= CAUSAL_CHUNK {
        return attend_whole(q, k, v, mask);
    }
    let chunks = (0..queries).step_by(CAUSAL_CHUNK).map(|start| {
        let count = CAUSAL_CHUNK.min(queries - start);
        let (mask, seen) = mask.of_queries(start..start + count, keys);
        let seen_of = |x: &Tensor<4>| x.clone().narrow(2, 0, seen);
        attend_whole(q.clone().narrow(2, start, count), seen_of(&k), seen_of(&v), &mask)
    });
    Tensor::cat(chunks.collect(), 2)
}

fn attend_whole(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: &AttentionMask) -> Tensor<4> {
    let [batch, heads, queries, dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let group = heads / kv_heads;
    let hide = mask.grouped(group);
    let q = q.reshape([batch, kv_heads, group * queries, dim]);
    let out = if q.is_autodiff() {
        written_out(q, k, v, hide)
    } else if queries == 1 {
        // A single query reads the cache once, in place. A fused kernel would first copy the part of the cache in use.
        written_out(q, k, v, hide)
    } else {
        let hide = hide.map(|mask| mask.expand([batch, kv_heads, group * queries, keys]));
        attention(q, k, v, hide, None, Default::default())
    };
    out.reshape([batch, heads, queries, dim])
}

fn written_out(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, hide: Option<Tensor<4, Bool>>) -> Tensor<4> {
    let (scale, dtype) = (scale(&q), v.dtype());
    probabilities((q * scale).matmul(k.transpose()), hide).cast(dtype).matmul(v)
}

/// `head_dim^(-1/2)`.
pub(super) fn scale(q: &Tensor<4>) -> f64 {
    (q.dims()[3] as f64).powf(-0.5)
}

/// Softmax of scores, `[batch, kv_heads, group · queries, keys]`, over the keys that are not hidden; in f32 or wider.
pub(super) fn probabilities(scores: Tensor<4>, hide: Option<Tensor<4, Bool>>) -> Tensor<4> {
    let scores = match scores.dtype() {
        DType::F16 | DType::BF16 => scores.cast(FloatDType::F32),
        _ => scores,
    };
    let scores = match hide {
        None => scores,
        Some(mask) => {
            // The most negative finite number, not -inf, so that a row stays finite even if every key is hidden.
            let lowest = scores.dtype().finfo().map_or(f64::from(f32::MIN), |info| info.min);
            let shape = scores.dims();
            scores.mask_fill(mask.expand(shape), lowest)
        }
    };
    softmax(scores, 3)
}
