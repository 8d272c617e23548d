//! Scaled dot-product attention with grouped key and value heads that are never expanded.
//!
//! The query heads that share a key head are laid along the query axis, `[batch, kv_heads, group · seq, head_dim]`:
//! one batched product serves the whole group on every backend. Without autodiff the backend's fused attention runs;
//! with it the product is written out, because Burn's fused form has no backward of its own.

use burn::tensor::{Bool, Device, Tensor, TensorData, activation::softmax, module::attention};

/// Which keys each query must not see, for one batch.
#[derive(Debug, Clone)]
pub struct AttentionMask {
    /// `true` hides a key; `[batch or 1, 1, queries, keys]`. `None` hides nothing.
    hide: Option<Tensor<4, Bool>>,
}

impl AttentionMask {
    /// Every query sees every key.
    pub fn none() -> Self {
        Self { hide: None }
    }

    /// Causal mask for `queries` new tokens after `past` cached ones, with the keys outside `rows[b]` hidden in row b.
    /// One mask for all rows where no row is padded.
    pub fn causal(queries: usize, past: usize, rows: &[std::ops::Range<usize>], device: &Device) -> Self {
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
        Self { hide: Some(Tensor::from_data(TensorData::new(hide, [rows.len(), 1, queries, keys]), device)) }
    }

    /// Repeats the query axis for `group` heads that share their keys.
    fn grouped(&self, group: usize) -> Option<Tensor<4, Bool>> {
        self.hide.clone().map(|mask| if group == 1 { mask } else { mask.repeat_dim(2, group) })
    }
}

/// Attention of `q`, `[batch, heads, queries, head_dim]`, over `k` and `v`, `[batch, kv_heads, keys, head_dim]`.
///
/// A query that may see no key at all gets some finite value, never NaN. Returns `[batch, heads, queries, head_dim]`.
pub fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, mask: &AttentionMask) -> Tensor<4> {
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
    let [batch, kv_heads, rows, dim] = q.dims();
    let keys = k.dims()[2];
    let scores = (q * (dim as f64).powf(-0.5)).matmul(k.transpose());
    let scores = match hide {
        None => scores,
        Some(mask) => {
            // The most negative finite number, not -inf: a row with every key hidden stays finite.
            let lowest = scores.dtype().finfo().map_or(f64::from(f32::MIN), |info| info.min);
            scores.mask_fill(mask.expand([batch, kv_heads, rows, keys]), lowest)
        }
    };
    softmax(scores, 3).matmul(v)
}
