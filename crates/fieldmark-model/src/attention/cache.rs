//! The KV cache: keys and values of earlier tokens, in buffers that are written in place.
//!
//! All rows of a batch write the same column at a time, so a step is one assignment a layer. A row that joins later is
//! written up to the current column, where its prompt ends; a row that leaves is replaced by the last one. Columns that no
//! row needs any more are forgotten, and their room is used again when the buffers are full.

use burn::tensor::{Int, Tensor, TensorData};

/// The keys and values of one layer, each in a buffer of `[row capacity, kv_heads, column capacity, head_dim]`.
#[derive(Debug, Clone, Default)]
pub struct LayerCache {
    buffers: Option<[Tensor<4>; 2]>,
    /// The number of rows in use: the first ones of the buffers.
    rows: usize,
    /// The first column in use.
    first: usize,
    /// The column after the last one in use.
    end: usize,
    /// The least capacity in rows and columns.
    reserve: [usize; 2],
}

impl LayerCache {
    /// Returns the number of columns in use.
    fn len(&self) -> usize {
        self.end - self.first
    }

    /// Appends `k` and `v`, `[rows, kv_heads, new, head_dim]`. Returns all keys and values so far,
    /// `[rows, kv_heads, len, head_dim]`.
    pub(crate) fn append(&mut self, k: Tensor<4>, v: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let [rows, _, new, _] = k.dims();
        self.make_room(rows, 0, new, &k);
        self.rows = rows;
        self.write(0, self.end, [k, v]);
        self.end += new;
        let [keys, values] = self.seen().expect("the buffers were just written");
        (keys, values)
    }

    /// Returns the keys and values in use, `[rows, kv_heads, len, head_dim]` each, without a copy.
    fn seen(&self) -> Option<[Tensor<4>; 2]> {
        let view = |buffer: &Tensor<4>| {
            let rows =
                if buffer.dims()[0] == self.rows { buffer.clone() } else { buffer.clone().narrow(0, 0, self.rows) };
            rows.narrow(2, self.first, self.len())
        };
        self.buffers.as_ref().map(|buffers| buffers.each_ref().map(view))
    }

    /// Adds a row for each of `indices`: a copy of that row of `prompts`, which then ends at the current column.
    fn admit(&mut self, prompts: &Self, indices: &Tensor<1, Int>) {
        let Some(prompts) = prompts.seen() else { return };
        let copies = prompts.map(|prompts| prompts.select(0, indices.clone()));
        let [added, _, len, _] = copies[0].dims();
        let missing = len.saturating_sub(self.len());
        if self.rows == 0 {
            (self.first, self.end) = (0, 0);
            self.make_room(added, 0, len, &copies[0]);
            self.end = len;
        } else {
            self.make_room(self.rows + added, missing, 0, &copies[0]);
            self.first -= missing;
        }
        self.rows += added;
        self.write(self.rows - added, self.end - len, copies);
    }

    /// Drops a row; the last row takes its place.
    fn remove(&mut self, row: usize) {
        self.rows -= 1;
        if row == self.rows {
            return;
        }
        if let Some(buffers) = &self.buffers {
            let device = buffers[0].device();
            let only = Tensor::<1, Int>::from_data(TensorData::new(vec![0_i64], [1]), &device);
            // `select` makes a copy of its own, so that the buffer has one owner again; it reads no more than the last row.
            let used = buffers.each_ref().map(|buffer| {
                let last = buffer.clone().narrow(0, self.rows, 1).narrow(2, self.first, self.len());
                last.select(0, only.clone())
            });
            self.write(row, self.first, used);
        }
    }

    /// Writes `values`, `[rows, kv_heads, columns, head_dim]`, to the buffers from a row and column on.
    fn write(&mut self, row: usize, column: usize, values: [Tensor<4>; 2]) {
        let [rows, heads, columns, dim] = values[0].dims();
        let place = [row..row + rows, 0..heads, column..column + columns, 0..dim];
        if let Some(buffers) = &mut self.buffers {
            // Each buffer has a single owner here, so the backend writes in place.
            for (buffer, values) in buffers.iter_mut().zip(values) {
                buffer.inplace(|buffer| buffer.slice_assign(place.clone(), values));
            }
        }
    }

    /// Makes room for `rows` rows in all, `front` columns before those in use and `back` columns after them. Copies only
    /// if the buffers are too small.
    fn make_room(&mut self, rows: usize, front: usize, back: usize, like: &Tensor<4>) {
        let [_, heads, _, dim] = like.dims();
        let [row_room, column_room] =
            self.buffers.as_ref().map_or([0, 0], |[keys, _]| [keys.dims()[0], keys.dims()[2]]);
        if rows <= row_room && front <= self.first && self.end + back <= column_room {
            return;
        }
        let len = self.len();
        let needed = front + len + back;
        let columns = if needed <= self.reserve[1] { self.reserve[1] } else { needed.max(front + 2 * len) };
        let rows = rows.max(self.reserve[0]);
        let options = (&like.device(), like.dtype());
        let old = if self.rows > 0 && len > 0 { self.seen() } else { None };
        self.buffers = Some([(); 2].map(|()| Tensor::zeros([rows, heads, columns, dim], options)));
        (self.first, self.end) = (front, front + len);
        if let Some(old) = old {
            self.write(0, self.first, old);
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
        Self::with_rows(layers, 0, reserve)
    }

    /// Returns an empty cache with room for `rows` sequences of `columns` tokens before the buffers first grow.
    pub fn with_rows(layers: usize, rows: usize, columns: usize) -> Self {
        Self { layers: (0..layers).map(|_| LayerCache { reserve: [rows, columns], ..Default::default() }).collect() }
    }

    /// Returns the number of cached tokens, padding included.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, LayerCache::len)
    }

    /// Returns the number of sequences.
    pub fn rows(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.rows)
    }

    /// Returns the number of tokens of a sequence that the buffers have room for, forgotten ones included.
    pub fn capacity(&self) -> usize {
        let buffers = self.layers.first().and_then(|layer| layer.buffers.as_ref());
        buffers.map_or(0, |[keys, _]| keys.dims()[2])
    }

    /// Returns true if no token is cached yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a sequence for each of `rows`: a copy of that row of `prompts`, padding included, which ends where the cached
    /// sequences end. If the prompts are longer than what is cached, [`Self::len`] grows to their length, and padding
    /// appears before the other sequences.
    pub fn admit(&mut self, prompts: &Self, rows: Tensor<1, Int>) {
        self.layers.iter_mut().zip(&prompts.layers).for_each(|(layer, prompts)| layer.admit(prompts, &rows));
    }

    /// Drops sequence `row`; the last sequence takes its place.
    pub fn remove(&mut self, row: usize) {
        self.layers.iter_mut().for_each(|layer| layer.remove(row));
    }

    /// Forgets the first `tokens` columns, which must be padding in every sequence. Their room is used again.
    pub fn forget(&mut self, tokens: usize) {
        self.layers.iter_mut().for_each(|layer| layer.first = layer.end.min(layer.first + tokens));
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use proptest::prelude::*;

    use super::*;

    const HEADS: usize = 2;

    /// A tensor `[rows, HEADS, columns, 1]` with a number for each row and column, told apart by head.
    fn tensor(rows: &[Vec<f32>]) -> Tensor<4> {
        let columns = rows[0].len();
        let values: Vec<f32> =
            rows.iter().flat_map(|row| [0.0, 0.5].map(|head| row.iter().map(move |x| x + head))).flatten().collect();
        Tensor::from_data(TensorData::new(values, [rows.len(), HEADS, columns, 1]), &Device::flex())
    }

    fn prompts(rows: &[Vec<f32>]) -> KvCache {
        let mut cache = KvCache::new(1, 0);
        cache.layers[0].append(tensor(rows), tensor(rows) + 1000.0);
        cache
    }

    /// What happens to a cache.
    #[derive(Debug, Clone)]
    enum Event {
        /// Prompts of one padded length join, some of them more than once.
        Admit {
            lengths: Vec<usize>,
            rows: Vec<usize>,
        },
        Step,
        Remove(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        let admit = (prop::collection::vec(1..12usize, 1..4), prop::collection::vec(0..9usize, 1..4));
        prop_oneof![
            2 => admit.prop_map(|(lengths, rows)| Event::Admit { lengths, rows }),
            8 => Just(Event::Step),
            2 => (0..9usize).prop_map(Event::Remove),
        ]
    }

    proptest! {
        #[test]
        fn a_cache_holds_what_its_rows_were_given(
            events in prop::collection::vec(event(), 1..40),
            reserve in (0..4usize, 0..30usize),
        ) {
            let mut cache = KvCache::with_rows(1, reserve.0, reserve.1);
            // The tokens of each row, without padding.
            let mut rows: Vec<Vec<f32>> = Vec::new();
            let mut next = 1.0;
            let mut number = || { next += 1.0; next };
            for event in events {
                match event {
                    Event::Admit { lengths, rows: chosen } => {
                        let longest = lengths.iter().copied().max().unwrap_or(0);
                        let tokens: Vec<Vec<f32>> =
                            lengths.iter().map(|&length| (0..length).map(|_| number()).collect()).collect();
                        let padded: Vec<Vec<f32>> = tokens
                            .iter()
                            .map(|row| std::iter::repeat_n(-1.0, longest - row.len()).chain(row.iter().copied()).collect())
                            .collect();
                        let chosen: Vec<usize> = chosen.iter().map(|&row| row % lengths.len()).collect();
                        let index: Vec<i64> = chosen.iter().map(|&row| row as i64).collect();
                        let index = Tensor::<1, Int>::from_data(TensorData::from(index.as_slice()), &Device::flex());
                        cache.admit(&prompts(&padded), index);
                        rows.extend(chosen.iter().map(|&row| tokens[row].clone()));
                    }
                    Event::Step if !rows.is_empty() => {
                        rows.iter_mut().for_each(|row| row.push(number()));
                        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
                        cache.forget((cache.len() + 1).saturating_sub(longest));
                        let new: Vec<Vec<f32>> = rows.iter().map(|row| vec![row[row.len() - 1]]).collect();
                        let (keys, values) = cache.layers[0].append(tensor(&new), tensor(&new) + 1000.0);
                        prop_assert_eq!(keys.dims(), [rows.len(), HEADS, longest, 1]);
                        for (b, row) in rows.iter().enumerate() {
                            for (head, add) in [(0, 0.0), (1, 0.5)] {
                                let place = [b..b + 1, head..head + 1, longest - row.len()..longest, 0..1];
                                let wanted: Vec<f32> = row.iter().map(|x| x + add).collect();
                                let found = keys.clone().slice(place.clone()).into_data().try_to_vec::<f32>().unwrap();
                                prop_assert_eq!(&found, &wanted);
                                let wanted: Vec<f32> = wanted.iter().map(|x| x + 1000.0).collect();
                                let found = values.clone().slice(place).into_data().try_to_vec::<f32>().unwrap();
                                prop_assert_eq!(&found, &wanted);
                            }
                        }
                    }
                    Event::Remove(row) if !rows.is_empty() => {
                        cache.remove(row % rows.len());
                        rows.swap_remove(row % rows.len());
                    }
                    Event::Step | Event::Remove(_) => {}
                }
                prop_assert_eq!(cache.rows(), rows.len());
            }
        }

        #[test]
        fn buffers_that_are_large_enough_are_never_replaced(steps in 1..60usize, prompt in 1..10usize) {
            // A row leaves and another joins at every step; no row is ever longer than its prompt and one token.
            let mut cache = KvCache::with_rows(1, 3, 40);
            let row = vec![1.0; prompt];
            let index = |rows: &[i64]| Tensor::<1, Int>::from_data(TensorData::from(rows), &Device::flex());
            cache.admit(&prompts(std::slice::from_ref(&row)), index(&[0, 0]));
            for _ in 0..steps {
                cache.forget((cache.len() + 1).saturating_sub(prompt + 2));
                cache.layers[0].append(tensor(&[vec![2.0], vec![3.0]]), tensor(&[vec![2.0], vec![3.0]]));
                cache.remove(0);
                cache.admit(&prompts(std::slice::from_ref(&row)), index(&[0]));
                prop_assert_eq!(cache.capacity(), 40);
            }
        }
    }
}
