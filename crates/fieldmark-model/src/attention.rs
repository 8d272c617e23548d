//! Scaled dot-product attention with grouped key and value heads that are never expanded.
//!
//! The query heads that share a key head are laid along the query axis, `[batch, kv_heads, group · seq, head_dim]`:
//! one batched product serves the whole group on every backend. Without autodiff the backend's fused attention runs;
//! with it the product is written out, because Burn's fused form has no backward of its own. The backward pass without a
//! tape is in [`crate::attention_backward`].

use std::ops::Range;

use burn::tensor::{Bool, DType, Device, FloatDType, Tensor, TensorData, activation::softmax, module::attention};

/// Which keys each query must not see, for one batch.
#[derive(Debug, Clone)]
pub struct AttentionMask {
    /// `true` hides a key; `[batch or 1, 1, queries, keys]`. `None` hides nothing.
    hide: Option<Tensor<4, Bool>>,
    /// Keys before the first query, where no query sees a key behind itself.
    past: Option<usize>,
}

impl AttentionMask {
    /// Every query sees every key.
    pub fn none() -> Self {
        Self { hide: None, past: None }
    }

    /// Causal mask for `queries` new tokens after `past` cached ones, with the keys outside `rows[b]` hidden in row b.
    /// One mask for all rows where no row is padded.
    pub fn causal(queries: usize, past: usize, rows: &[Range<usize>], device: &Device) -> Self {
        let keys = past + queries;
        let padded = rows.iter().any(|row| row.start != 0 || row.end < keys);
        if queries == 1 && !padded {
            return Self::none();
        }
        let whole = 0..keys;
        let rows = if padded { rows } else { std::slice::from_ref(&whole) };
        let mut hide = Vec::with_capacity(rows.len() * queries * keys);
        for row in rows {
            for query in 0..queries {
                hide.extend((0..keys).map(|key| key > past + query || !row.contains(&key)));
            }
        }
        let hide = Some(Tensor::from_data(TensorData::new(hide, [rows.len(), 1, queries, keys]), device));
        Self { hide, past: Some(past) }
    }

    /// The mask of the queries in `queries` alone, and how many of `keys` keys they see at most.
    pub(crate) fn of_queries(&self, queries: Range<usize>, keys: usize) -> (Self, usize) {
        let seen = self.past.map_or(keys, |past| keys.min(past + queries.end));
        let hide = self.hide.clone().map(|hide| hide.narrow(2, queries.start, queries.len()).narrow(3, 0, seen));
        (Self { hide, past: self.past.map(|past| past + queries.start) }, seen)
    }

    /// Repeats the query axis for `group` heads that share their keys.
    fn grouped(&self, group: usize) -> Option<Tensor<4, Bool>> {
        self.hide.clone().map(|mask| if group == 1 { mask } else { mask.repeat_dim(2, group) })
    }
}

/// Queries of a causal batch that the fused form takes at a time: a mask of all of them, laid out for the heads that share
/// keys, would be the largest tensor of a long sequence, and the first chunks need not look at the last keys.
pub const CAUSAL_CHUNK: usize = 512;

/// Attention of `q`, `[batch, heads, queries, head_dim]`, over `k` and `v`, `[batch, kv_heads, keys, head_dim]`.
///
/// A query that may see no key at all gets some finite value, never NaN. Returns `[batch, heads, queries, head_dim]`.
pub fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: &AttentionMask) -> Tensor<4> {
    let (queries, keys) = (q.dims()[2], k.dims()[2]);
    if q.is_autodiff() || mask.past.is_none() || queries <= CAUSAL_CHUNK {
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
        // One query reads the cache once, in place: a fused kernel would first copy the slice of it in use.
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
pub(crate) fn scale(q: &Tensor<4>) -> f64 {
    (q.dims()[3] as f64).powf(-0.5)
}

/// Softmax of scores over the keys that are not hidden, in f32 at least: `[batch, kv_heads, group · queries, keys]`.
fn probabilities(scores: Tensor<4>, hide: Option<Tensor<4, Bool>>) -> Tensor<4> {
    let scores = match scores.dtype() {
        DType::F16 | DType::BF16 => scores.cast(FloatDType::F32),
        _ => scores,
    };
    let scores = match hide {
        None => scores,
        Some(mask) => {
            // The most negative finite number, not -inf: a row with every key hidden stays finite.
            let lowest = scores.dtype().finfo().map_or(f64::from(f32::MIN), |info| info.min);
            let shape = scores.dims();
            scores.mask_fill(mask.expand(shape), lowest)
        }
    };
    softmax(scores, 3)
}

impl AttentionMask {
    /// Attention probabilities of scaled `scores`, `[batch, kv_heads, group · queries, keys]`.
    pub(crate) fn probabilities(&self, scores: Tensor<4>, group: usize) -> Tensor<4> {
        probabilities(scores, self.grouped(group))
    }
}
