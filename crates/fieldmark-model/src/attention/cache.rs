//! Keys and values of tokens already seen, in buffers that are written in place and grow by doubling.

use burn::tensor::{Int, Tensor};

/// One layer's buffers, `[batch, kv_heads, capacity, head_dim]` each.
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    buffers: Option<(Tensor<4>, Tensor<4>)>,
    len: usize,
    reserve: usize,
}

impl LayerCache {
    /// Writes `k` and `v`, `[batch, kv_heads, new, head_dim]`, behind what is there; returns all keys and values so far,
    /// `[batch, kv_heads, len, head_dim]`.
    pub(crate) fn append(&mut self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [batch, heads, new, dim] = k.dims();
        let needed = self.len + new;
        let (mut keys, mut values) = match self.buffers.take() {
            Some((keys, values)) if keys.dims()[2] >= needed => (keys, values),
            old => {
                let capacity = needed.max(self.reserve).max(2 * self.len);
                let options = (&k.device(), k.dtype());
                let grow = |old: Option<Tensor<4>>| {
                    let fresh = Tensor::zeros([batch, heads, capacity, dim], options);
                    match old {
                        Some(old) => fresh.slice_assign([0..batch, 0..heads, 0..old.dims()[2], 0..dim], old),
                        None => fresh,
                    }
                };
                let (old_k, old_v) = old.unzip();
                (grow(old_k), grow(old_v))
            }
        };
        let place = [0..batch, 0..heads, self.len..needed, 0..dim];
        // Each buffer has one owner here, so the backend writes in place.
        keys.inplace(|keys| keys.slice_assign(place.clone(), k));
        values.inplace(|values| values.slice_assign(place, v));
        self.len = needed;
        let seen = (keys.clone().narrow(2, 0, needed), values.clone().narrow(2, 0, needed));
        self.buffers = Some((keys, values));
        seen
    }

    fn select(&mut self, rows: &Tensor<1, Int>) {
        if let Some((keys, values)) = self.buffers.take() {
            self.buffers = Some((keys.select(0, rows.clone()), values.select(0, rows.clone())));
        }
    }
}

/// The cache of a batch of sequences. It belongs to the generation that made it, never to the model.
#[derive(Debug, Clone)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
}

impl KvCache {
    /// An empty cache for `layers` layers with room for `reserve` tokens before it first grows.
    pub fn new(layers: usize, reserve: usize) -> Self {
        Self { layers: (0..layers).map(|_| LayerCache { reserve, ..Default::default() }).collect() }
    }

    /// Tokens in it, padding counted.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.len)
    }

    /// Tokens that there is room for until the buffers grow.
    pub fn capacity(&self) -> usize {
        let buffers = self.layers.first().and_then(|layer| layer.buffers.as_ref());
        buffers.map_or(0, |(keys, _)| keys.dims()[2])
    }

    /// Whether nothing has been written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps, drops or repeats sequences: row i of the new cache is row `rows[i]` of the old one.
    pub fn select(&mut self, rows: Tensor<1, Int>) {
        self.layers.iter_mut().for_each(|layer| layer.select(&rows));
    }
}
