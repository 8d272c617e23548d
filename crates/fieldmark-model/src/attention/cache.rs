//! The KV cache: keys and values of earlier tokens, in buffers that are written in place and grow by doubling.

use burn::tensor::{Int, Tensor};

/// The keys and values of one layer, each in a buffer of `[batch, kv_heads, capacity, head_dim]`.
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    buffers: Option<(Tensor<4>, Tensor<4>)>,
    len: usize,
    reserve: usize,
}

impl LayerCache {
    /// Appends `k` and `v`, `[batch, kv_heads, new, head_dim]`. Returns all keys and values so far,
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
        // Each buffer has a single owner here, so the backend writes in place.
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

/// The KV cache of a batch of sequences. Each generation owns its cache; the model holds none.
#[derive(Debug, Clone)]
pub struct KvCache {
    pub(crate) layers: Vec<LayerCache>,
}

impl KvCache {
    /// Returns an empty cache for `layers` layers, with room for `reserve` tokens before the buffers first grow.
    pub fn new(layers: usize, reserve: usize) -> Self {
        Self { layers: (0..layers).map(|_| LayerCache { reserve, ..Default::default() }).collect() }
    }

    /// Returns the number of cached tokens, padding included.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.len)
    }

    /// Returns the number of tokens that fit before the buffers grow.
    pub fn capacity(&self) -> usize {
        let buffers = self.layers.first().and_then(|layer| layer.buffers.as_ref());
        buffers.map_or(0, |(keys, _)| keys.dims()[2])
    }

    /// Returns true if no token is cached yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps, drops or repeats sequences: row i becomes a copy of the former row `rows[i]`.
    pub fn select(&mut self, rows: Tensor<1, Int>) {
        self.layers.iter_mut().for_each(|layer| layer.select(&rows));
    }
}
