//! From rows of tokens to the tokens in the loss, and back. The state at position t predicts token t + 1, so a token in
//! the loss at t needs the hidden state at t - 1. Logits are computed for these N states only, never for
//! `[batch, sequence]`. SFT (assistant tokens) and TAPO (response tokens) both use this.

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::loss_norm::BatchSize;
use crate::TrainError;

/// Positions of the tokens in the loss, in a batch of B rows of T tokens.
///
/// N is the number of tokens in the loss in all rows, in row order. R is the largest number in any row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPacking {
    states: Vec<i64>,
    targets: Vec<i64>,
    counts: Vec<usize>,
}

impl TokenPacking {
    /// Finds the tokens in the loss in padded rows.
    ///
    /// * `ids`: token ids, B rows of T, padded on either side.
    /// * `mask`: true for tokens in the loss; the same shape.
    ///
    /// # Errors
    /// Returns an error if rows differ in length, the first token of a row is in the loss, or no token is in the loss.
    pub fn new(ids: &[Vec<u32>], mask: &[Vec<bool>]) -> Result<Self, TrainError> {
        let width = ids.first().map_or(0, Vec::len);
        if let Some(row) = ids.iter().position(|ids| ids.len() != width) {
            return Err(TrainError::RaggedRow { row, len: ids[row].len(), expected: width });
        }
        Self::packed(ids, mask, |row, t| row * width + t)
    }

    /// Finds the tokens in the loss in sequences that share a single row, without padding. `place` maps a sequence and a
    /// token of it to the token's place in the row.
    ///
    /// # Errors
    /// Returns an error if a sequence and its mask differ in length, the first token of a sequence is in the loss, or
    /// no token of any sequence is in the loss.
    pub fn packed(
        ids: &[Vec<u32>],
        mask: &[Vec<bool>],
        place: impl Fn(usize, usize) -> usize,
    ) -> Result<Self, TrainError> {
        let (mut states, mut targets, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        for (row, ids) in ids.iter().enumerate() {
            let mask = mask.get(row).map_or(&[][..], Vec::as_slice);
            if ids.len() != mask.len() {
                return Err(TrainError::MaskLength { row, ids: ids.len(), mask: mask.len() });
            }
            if mask.first() == Some(&true) {
                return Err(TrainError::FirstTokenInLoss { row });
            }
            let before = states.len();
            for t in (1..ids.len()).filter(|&t| mask[t]) {
                states.push(place(row, t - 1) as i64);
                targets.push(i64::from(ids[t]));
            }
            counts.push(states.len() - before);
        }
        if states.is_empty() {
            return Err(TrainError::NoLossTokens { rows: ids.len() });
        }
        Ok(Self { states, targets, counts })
    }

    /// Number of tokens in the loss (N) and of rows or sequences (B).
    pub fn size(&self) -> BatchSize {
        BatchSize { tokens: self.states.len(), sequences: self.counts.len() }
    }

    /// Number of tokens in the loss of each row. Length B.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Picks the states that predict the tokens in the loss: `[B, T, D]` to `[N, D]`. Carries the gradient.
    pub fn gather(&self, hidden_btd: Tensor<3>) -> Tensor<2> {
        let device = hidden_btd.device();
        let [batch, length, width] = hidden_btd.dims();
        hidden_btd.reshape([batch * length, width]).select(0, indices(&self.states, &device))
    }

    /// Inverse of [`Self::gather`], for gradients: `[N, D]` to `[B, T, D]`, with 0 at all other states.
    pub fn scatter(&self, values_nd: Tensor<2>, [batch, length]: [usize; 2]) -> Tensor<3> {
        let device = values_nd.device();
        let width = values_nd.dims()[1];
        let zeros = Tensor::<2>::zeros([batch * length, width], (&device, values_nd.dtype()));
        let add = burn::tensor::IndexingUpdateOp::Add;
        zeros.select_assign(0, indices(&self.states, &device), values_nd, add).reshape([batch, length, width])
    }

    /// Ids of the tokens in the loss. `[N]`.
    pub fn targets(&self, device: &Device) -> Tensor<1, Int> {
        indices(&self.targets, device)
    }

    /// The rows that contain only the tokens in the loss.
    pub fn rows(&self) -> ResponseRows {
        ResponseRows::new(self.counts.iter().copied())
    }
}

/// Arranges per-token values as left-aligned rows: N tokens of B sequences, at most R tokens in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseRows {
    counts: Vec<usize>,
}

impl ResponseRows {
    /// Makes rows of `counts` tokens each.
    pub fn new(counts: impl IntoIterator<Item = usize>) -> Self {
        Self { counts: counts.into_iter().collect() }
    }

    /// Number of tokens in all rows (N).
    pub fn tokens(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Mask of the rows: 1 where a row has a token, else 0. `[B, R]`.
    pub fn mask(&self, device: &Device) -> Tensor<2> {
        let width = self.width();
        let data = self.counts.iter().flat_map(|&n| (0..width).map(move |t| f32::from(t < n))).collect();
        Tensor::from_data(TensorData::new::<f32, _>(data, [self.counts.len(), width]), device)
    }

    /// Puts per-token values into left-aligned rows, filled up with 0: `[N]` to `[B, R]`. Carries the gradient.
    pub fn unpack(&self, values_n: Tensor<1>) -> Tensor<2> {
        let (device, width) = (values_n.device(), self.width());
        let zero_at = self.tokens() as i64;
        let mut next = 0..zero_at;
        let mut slots = Vec::with_capacity(self.counts.len() * width);
        for &count in &self.counts {
            slots.extend(next.by_ref().take(count));
            slots.extend(std::iter::repeat_n(zero_at, width - count));
        }
        let zero = values_n.zeros_like().narrow(0, 0, 1);
        Tensor::cat(vec![values_n, zero], 0).select(0, indices(&slots, &device)).reshape([self.counts.len(), width])
    }

    /// Inverse of [`Self::unpack`]: `[B, R]` to `[N]`.
    pub fn pack(&self, values_br: Tensor<2>) -> Tensor<1> {
        let (device, width) = (values_br.device(), self.width());
        let slots: Vec<i64> = self
            .counts
            .iter()
            .enumerate()
            .flat_map(|(row, &n)| (0..n).map(move |t| (row * width + t) as i64))
            .collect();
        values_br.reshape([self.counts.len() * width]).select(0, indices(&slots, &device))
    }

    fn width(&self) -> usize {
        self.counts.iter().copied().max().unwrap_or(0)
    }
}

fn indices(values: &[i64], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packing() -> TokenPacking {
        let ids = vec![vec![5, 6, 7, 8], vec![1, 2, 3, 4], vec![9, 9, 9, 9]];
        let mask = [[0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]].map(|r| r.map(|m| m == 1).to_vec());
        TokenPacking::new(&ids, &mask).unwrap()
    }

    fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().iter().collect()
    }

    #[test]
    fn states_stand_one_before_their_targets() {
        let device = Device::default();
        let packing = packing();
        assert_eq!(packing.size(), BatchSize { tokens: 3, sequences: 3 });
        assert_eq!(packing.counts(), [2, 1, 0]);
        let hidden = Tensor::<1>::from_floats(std::array::from_fn::<f32, 24, _>(|i| i as f32), &device);
        let states = floats(packing.gather(hidden.reshape([3, 4, 2])));
        assert_eq!(states, [2.0, 3.0, 4.0, 5.0, 8.0, 9.0]);
        let targets: Vec<i64> = packing.targets(&device).into_data().iter().collect();
        assert_eq!(targets, [7, 8, 2]);
        assert_eq!(floats(packing.rows().mask(&device)), [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn a_packed_row_has_the_states_of_its_sequences() {
        let ids = vec![vec![5, 6, 7], vec![1, 2], vec![3, 4, 8]];
        let mask = vec![vec![false, false, true], vec![false, false], vec![false, true, true]];
        let place = |sequence: usize, token: usize| [0, 3, 5][sequence] + token;
        let packing = TokenPacking::packed(&ids, &mask, place).unwrap();
        assert_eq!((packing.states.clone(), packing.targets.clone()), (vec![1, 5, 6], vec![7, 4, 8]));
        assert_eq!(packing.counts(), [1, 0, 2]);
        let refused =
            TokenPacking::packed(&[vec![1, 2], vec![3]], &[vec![false, true], vec![true]], place).unwrap_err();
        assert!(matches!(refused, TrainError::FirstTokenInLoss { row: 1 }));
        assert!(matches!(TokenPacking::packed(&[], &[], place).unwrap_err(), TrainError::NoLossTokens { rows: 0 }));
    }

    #[test]
    fn a_state_that_sequences_share_gets_the_sum_of_their_gradients() {
        let device = Device::default();
        let ids = vec![vec![1, 7], vec![1, 8, 9]];
        let mask = vec![vec![false, true], vec![false, true, true]];
        // The first token is there once.
        let packing = TokenPacking::packed(&ids, &mask, |sequence, t| [[0, 1, 0], [0, 2, 3]][sequence][t]).unwrap();
        assert_eq!((packing.states.clone(), packing.targets.clone()), (vec![0, 0, 2], vec![7, 8, 9]));
        let grads = Tensor::<2>::from_floats([[1.0], [10.0], [100.0]], &device);
        assert_eq!(floats(packing.scatter(grads, [1, 4])), [11.0, 0.0, 100.0, 0.0]);
    }

    #[test]
    fn scattering_is_the_gradient_of_gathering() {
        let device = Device::default().autodiff();
        let packing = packing();
        let hidden = Tensor::<1>::from_floats(std::array::from_fn::<f32, 24, _>(|i| i as f32), &device).require_grad();
        let weights = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device);
        let grads = (packing.gather(hidden.clone().reshape([3, 4, 2])) * weights.clone()).sum().backward();
        assert_eq!(floats(packing.scatter(weights.inner(), [3, 4])), floats(hidden.grad(&grads).unwrap()));
    }

    #[test]
    fn unpacking_and_packing_are_inverse_and_carry_gradient() {
        let device = Device::default().autodiff();
        let packing = packing().rows();
        let values = Tensor::<1>::from_floats([10.0, 20.0, 30.0], &device).require_grad();
        let rows = packing.unpack(values.clone());
        assert_eq!(floats(rows.clone()), [10.0, 20.0, 30.0, 0.0, 0.0, 0.0]);
        let weights = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device);
        assert_eq!(floats(packing.pack(weights.clone())), [1.0, 2.0, 3.0]);
        let grads = (rows * weights).sum().backward();
        assert_eq!(floats(values.grad(&grads).unwrap()), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn rows_that_cannot_be_packed_are_named() {
        let ids = |n: usize| vec![1u32; n];
        let refused = |ids: &[Vec<u32>], mask: &[Vec<bool>]| TokenPacking::new(ids, mask).unwrap_err();
        let short = refused(&[ids(3)], &[vec![false; 2]]);
        assert!(matches!(short, TrainError::MaskLength { row: 0, ids: 3, mask: 2 }));
        let ragged = refused(&[ids(3), ids(2)], &[vec![false; 3], vec![false; 2]]);
        assert!(matches!(ragged, TrainError::RaggedRow { row: 1, len: 2, expected: 3 }));
        let first = refused(&[ids(2)], &[vec![true, true]]);
        assert!(matches!(first, TrainError::FirstTokenInLoss { row: 0 }));
        assert!(matches!(refused(&[ids(2)], &[vec![false; 2]]), TrainError::NoLossTokens { rows: 1 }));
        assert!(matches!(refused(&[], &[]), TrainError::NoLossTokens { rows: 0 }));
    }
}
