//! The divisor of a loss. `batch`: one token mean over the whole update, as in equation 4 of the paper; gradient
//! accumulation does not change it. `micro`: the mean of the means of the micro-batches, as in the released SFT and
//! TAPO code. A mean is `sum(v m) / (sum(m) + 1e-8)`.

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const EPSILON: f64 = 1e-8;

/// The tokens that the mean of a loss is taken over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LossNorm {
    /// All tokens of the update. The gradient does not depend on how the update is cut into micro-batches.
    #[default]
    Batch,
    /// The tokens of each micro-batch; then a mean over micro-batches. Tokens of short micro-batches weigh more
    /// (released code).
    Micro,
}

/// Size of a batch or micro-batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchSize {
    /// Number of tokens in the loss.
    pub tokens: usize,
    /// Number of sequences.
    pub sequences: usize,
}

/// Divisors for the loss of one micro-batch. The losses of all micro-batches add up to the update's mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normaliser {
    tokens: f64,
    sequences: f64,
    weight: f64,
    token_budget: f64,
}

impl LossNorm {
    /// Makes the divisors for one micro-batch of an update.
    ///
    /// * `update`: size of the whole update.
    /// * `micro`: size of this micro-batch.
    /// * `micro_batches`: number of micro-batches in the update.
    pub fn normaliser(self, update: BatchSize, micro: BatchSize, micro_batches: usize) -> Normaliser {
        let (size, weight) = match self {
            Self::Batch => (update, 1.0),
            Self::Micro => (micro, 1.0 / micro_batches.max(1) as f64),
        };
        Normaliser { tokens: size.tokens as f64, sequences: size.sequences.max(1) as f64, weight, token_budget: 1.0 }
    }
}

impl Normaliser {
    /// Sets the largest number of tokens in a response. Only [`Self::constant_mean`] uses it.
    #[must_use]
    pub fn with_token_budget(self, tokens: usize) -> Self {
        Self { token_budget: tokens.max(1) as f64, ..self }
    }

    /// This micro-batch's share of the sum over tokens, divided by the number of sequences times the token budget. The
    /// divisor does not depend on the lengths of the responses, so a token weighs the same in a short response, in a
    /// long one, and in every update. Shape `[1]`.
    ///
    /// Dr. GRPO, arXiv 2503.20783: the generation budget replaces the length of the response. If no budget is set
    /// ([`Self::with_token_budget`]) it is 1, which gives the mean over sequences of each sequence's sum.
    pub fn constant_mean(&self, values_bt: Tensor<2>, mask_bt: Tensor<2>) -> Tensor<1> {
        (values_bt * mask_bt).sum() * (self.weight / (self.sequences * self.token_budget))
    }

    /// This micro-batch's share of the mean of `values_bt` over the tokens whose `mask_bt` is 1. Shape `[1]`.
    pub fn token_mean(&self, values_bt: Tensor<2>, mask_bt: Tensor<2>) -> Tensor<1> {
        (values_bt * mask_bt).sum() * (self.weight / (self.tokens + EPSILON))
    }

    /// This micro-batch's share of the mean over sequences of each sequence's token mean. Shape `[1]`.
    pub fn sequence_mean(&self, values_bt: Tensor<2>, mask_bt: Tensor<2>) -> Tensor<1> {
        let tokens_b1 = mask_bt.clone().sum_dim(1) + EPSILON;
        ((values_bt * mask_bt).sum_dim(1) / tokens_b1).sum() * (self.weight / self.sequences)
    }

    /// Factor that turns a plain sum over tokens into this micro-batch's share of the token mean.
    pub fn token_factor(&self) -> f64 {
        self.weight / (self.tokens + EPSILON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    const VALUES: [[f32; 3]; 4] = [[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [3.0, 5.0, 7.0], [9.0, 1.0, 6.0]];
    const MASK: [[f32; 3]; 4] = [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]];

    fn rows(data: &[[f32; 3]]) -> Tensor<2> {
        let flat = data.concat();
        Tensor::from_data(TensorData::new(flat, [data.len(), 3]), &Device::default())
    }

    fn size(mask: &[[f32; 3]]) -> BatchSize {
        BatchSize { tokens: mask.concat().iter().sum::<f32>() as usize, sequences: mask.len() }
    }

    fn accumulated(norm: LossNorm, split: usize, mean: fn(&Normaliser, Tensor<2>, Tensor<2>) -> Tensor<1>) -> f32 {
        let parts = [(&VALUES[..split], &MASK[..split]), (&VALUES[split..], &MASK[split..])];
        let share = |(values, mask): (&[[f32; 3]], &[[f32; 3]])| {
            let n = norm.normaliser(size(&MASK), size(mask), 2).with_token_budget(5);
            mean(&n, rows(values), rows(mask)).into_scalar::<f32>()
        };
        parts.into_iter().map(share).sum()
    }

    #[test]
    fn batch_is_blind_to_the_split_and_micro_is_not() {
        let tokens = (7.0 + 8.0 + 8.0 + 9.0) / 7.0;
        let sequences = (7.0 / 3.0 + 8.0 + 4.0 + 9.0) / 4.0;
        let constant = (7.0 + 8.0 + 8.0 + 9.0) / (4.0 * 5.0);
        for split in [1, 2, 3] {
            assert!((accumulated(LossNorm::Batch, split, Normaliser::token_mean) - tokens).abs() < 1e-5);
            assert!((accumulated(LossNorm::Batch, split, Normaliser::sequence_mean) - sequences).abs() < 1e-5);
            assert!((accumulated(LossNorm::Batch, split, Normaliser::constant_mean) - constant).abs() < 1e-5);
        }
        let micro = (7.0 / 3.0 + (8.0 + 8.0 + 9.0) / 4.0) / 2.0;
        assert!((accumulated(LossNorm::Micro, 1, Normaliser::token_mean) - micro).abs() < 1e-5);
        let micro = (7.0 / 3.0 + (8.0 + 4.0 + 9.0) / 3.0) / 2.0;
        assert!((accumulated(LossNorm::Micro, 1, Normaliser::sequence_mean) - micro).abs() < 1e-5);
        let micro = (7.0 / 5.0 + (8.0 + 8.0 + 9.0) / (3.0 * 5.0)) / 2.0;
        assert!((accumulated(LossNorm::Micro, 1, Normaliser::constant_mean) - micro).abs() < 1e-5);
    }
}
