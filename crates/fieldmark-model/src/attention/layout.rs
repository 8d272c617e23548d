//! Which tokens of a batch attend to which. Attention is computed in tiles: the whole padded batch, the sequences of a
//! packed row, or the windows or frames of images. Scores are only computed within a tile, so packed sequences and
//! windows need no mask and waste no products.
//!
//! A packed sequence may continue another: the responses to a prompt see its keys and values and their own, so the prompt
//! goes through the network once (shared prefixes; Liu et al. 2025, arXiv 2506.05433).

use std::{collections::HashSet, ops::Range};

use burn::tensor::{Device, Tensor};

use super::{backward::attention_backward, forward::attend, mask::AttentionMask};

/// Consecutive items of one length with spans of one length in each: images of one size and their windows, or
/// sequences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tile {
    /// First token of the first item.
    pub(crate) start: usize,
    /// Number of items.
    pub(crate) items: usize,
    /// Number of tokens in an item.
    pub(crate) item_len: usize,
    /// First token of the first span, counted within the item.
    pub(crate) from: usize,
    /// Number of spans in an item.
    pub(crate) count: usize,
    /// Number of tokens in a span.
    pub(crate) len: usize,
    /// The earlier tile, of one span, whose keys each span sees before its own.
    pub(crate) after: Option<usize>,
}

/// Which tokens of a batch attend to which. Queries, keys, values and results are `[batch, seq, heads, head_dim]`.
#[derive(Debug, Clone)]
pub struct AttentionLayout {
    /// If empty, the whole batch is one tile.
    tiles: Vec<Tile>,
    /// The mask of the batch, or of the longest tile.
    mask: AttentionMask,
}

impl AttentionLayout {
    /// Returns the layout of a padded batch: each row attends to itself under `mask`.
    pub fn batch(mask: AttentionMask) -> Self {
        Self { tiles: Vec::new(), mask }
    }

    /// Returns the layout of sequences packed into one row, each with causal attention to itself. `sequences` are their
    /// token ranges, in order. A sequence with an index in `after` also sees all tokens of that earlier sequence, which
    /// must not continue another one itself.
    pub fn packed(sequences: &[Range<usize>], after: &[Option<usize>], device: &Device) -> Self {
        let continued: HashSet<usize> = after.iter().flatten().copied().collect();
        let mut tiles: Vec<Tile> = Vec::new();
        let mut tile_of = Vec::with_capacity(sequences.len());
        let mut longest = 0;
        for (i, sequence) in sequences.iter().enumerate() {
            let len = sequence.len();
            let before = after.get(i).copied().flatten();
            longest = longest.max(len + before.map_or(0, |before| sequences[before].len()));
            let before = before.map(|before| tile_of[before]);
            // What others continue stands alone.
            let alone = continued.contains(&i) || i > 0 && continued.contains(&(i - 1));
            match tiles.last_mut().filter(|tile| !alone && tile.len == len && tile.after == before) {
                Some(tile) => tile.items += 1,
                None => tiles.push(Tile {
                    start: sequence.start,
                    items: 1,
                    item_len: len,
                    from: 0,
                    count: 1,
                    len,
                    after: before,
                }),
            }
            tile_of.push(tiles.len() - 1);
        }
        let whole = 0..longest;
        let mask = AttentionMask::causal(longest, 0, std::slice::from_ref(&whole), device);
        Self { tiles, mask }
    }

    /// Returns a layout without a mask: every token of a span sees every other. Tiles with the same items must be
    /// adjacent.
    pub(crate) fn tiled(tiles: Vec<Tile>) -> Self {
        Self { tiles, mask: AttentionMask::none() }
    }

    /// Computes attention of `q` over `k` and `v`, which may have fewer heads.
    pub fn attend(&self, [q, k, v]: [Tensor<4>; 3]) -> Tensor<4> {
        if self.tiles.is_empty() {
            return attend(q.swap_dims(1, 2), k.swap_dims(1, 2), v.swap_dims(1, 2), &self.mask).swap_dims(1, 2);
        }
        let outs = self.tiles.iter().map(|tile| {
            let mask = self.mask_of(tile);
            attend(tile.cut(&q), self.seen(tile, &k), self.seen(tile, &v), &mask)
        });
        self.join(outs.collect())
    }

    /// Returns the gradients of `sum(attend([q, k, v]) ∘ grad)` with respect to q, k and v. `out` is the result of
    /// [`Self::attend`]; `chunk` is the number of queries computed at a time (0: all). No tensor may be tracked by
    /// autodiff.
    pub fn backward(&self, qkv: [Tensor<4>; 3], out: Tensor<4>, grad: Tensor<4>, chunk: usize) -> [Tensor<4>; 3] {
        if self.tiles.is_empty() {
            let qkv = qkv.map(|x| x.swap_dims(1, 2));
            let grads = attention_backward(qkv, out.swap_dims(1, 2), grad.swap_dims(1, 2), &self.mask, chunk);
            return grads.map(|x| x.swap_dims(1, 2));
        }
        let mut parts: [Vec<Tensor<4>>; 3] = Default::default();
        for tile in &self.tiles {
            let cut = [tile.cut(&qkv[0]), self.seen(tile, &qkv[1]), self.seen(tile, &qkv[2])];
            let mask = self.mask_of(tile);
            let [dq, dk, dv] = attention_backward(cut, tile.cut(&out), tile.cut(&grad), &mask, chunk);
            parts[0].push(dq);
            for (part, found) in parts[1..].iter_mut().zip([dk, dv]) {
                let own = match tile.after {
                    None => found,
                    Some(before) => {
                        let shared = self.tiles[before].len;
                        let sum = found.clone().narrow(2, 0, shared).sum_dim(0);
                        part[before] = part[before].clone() + sum;
                        found.narrow(2, shared, tile.len)
                    }
                };
                part.push(own);
            }
        }
        parts.map(|parts| self.join(parts))
    }

    /// The keys or values that the queries of a tile see: those of the tile that it continues, then its own.
    fn seen(&self, tile: &Tile, x: &Tensor<4>) -> Tensor<4> {
        let own = tile.cut(x);
        let Some(before) = tile.after else { return own };
        let shared = self.tiles[before].cut(x);
        let [_, heads, len, dim] = shared.dims();
        Tensor::cat(vec![shared.expand([tile.items * tile.count, heads, len, dim]), own], 2)
    }

    fn mask_of(&self, tile: &Tile) -> AttentionMask {
        let shared = tile.after.map_or(0, |before| self.tiles[before].len);
        let keys = shared + tile.len;
        self.mask.of_queries(shared..keys, keys).0
    }

    /// Joins the parts of all tiles into one tensor: the inverse of [`Tile::cut`].
    fn join(&self, parts: Vec<Tensor<4>>) -> Tensor<4> {
        let mut rows = Vec::new();
        let mut item = Vec::new();
        for (i, (tile, part)) in self.tiles.iter().zip(parts).enumerate() {
            let [_, heads, _, dim] = part.dims();
            item.push(part.swap_dims(1, 2).reshape([tile.items, tile.count * tile.len, heads, dim]));
            if self.tiles.get(i + 1).is_none_or(|next| next.start != tile.start) {
                let whole = cat(std::mem::take(&mut item));
                rows.push(whole.reshape([1, tile.items * tile.item_len, heads, dim]));
            }
        }
        cat(rows)
    }
}

fn cat(mut parts: Vec<Tensor<4>>) -> Tensor<4> {
    if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 1) }
}

impl Tile {
    /// Cuts the tile out of `[1, seq, heads, head_dim]`. Returns `[items · count, heads, len, head_dim]`.
    fn cut(&self, x: &Tensor<4>) -> Tensor<4> {
        let [_, _, heads, dim] = x.dims();
        let spans = self.count * self.len;
        let x = if self.items == 1 {
            x.clone().narrow(1, self.start + self.from, spans)
        } else {
            let x = x.clone().narrow(1, self.start, self.items * self.item_len);
            x.reshape([self.items, self.item_len, heads, dim]).narrow(1, self.from, spans)
        };
        x.reshape([self.items * self.count, self.len, heads, dim]).swap_dims(1, 2)
    }
}
