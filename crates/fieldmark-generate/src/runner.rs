//! Runs the model: prefills prompts, lets sequences join the cache, decodes one token per row.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use fieldmark_model::{KvCache, Padding, Qwen25Vl, RopePosition};
use fieldmark_processor::{Sequence, collate};

use crate::{error::GenerateError, sequence::DecodeInput};

/// A model with its device and padding token.
#[derive(Debug, Clone)]
pub(crate) struct ModelRunner<'a> {
    pub(crate) model: &'a Qwen25Vl,
    pub(crate) pad_id: u32,
    pub(crate) device: Device,
}

/// Prompts after the model has read them, one entry or row per prompt.
#[derive(Debug)]
pub(crate) struct Prefilled {
    pub(crate) cache: KvCache,
    /// Logits of the first new token, `[prompts, vocab]`.
    pub(crate) logits_pv: Tensor<2>,
    /// Rope position of the first new token.
    pub(crate) next_position: Vec<RopePosition>,
}

impl ModelRunner<'_> {
    /// Returns an empty cache with room for `rows` sequences of `columns` tokens before it grows.
    pub(crate) fn cache(&self, rows: usize, columns: usize) -> KvCache {
        KvCache::with_rows(self.model.config().text.num_hidden_layers, rows, columns)
    }

    pub(crate) fn prefill(&self, prompts: &[Sequence]) -> Result<Prefilled, GenerateError> {
        let inputs = collate(prompts, Padding::Left, self.pad_id, None, self.model.config(), &self.device)?;
        let [batch, seq] = inputs.dims();
        let mut cache = self.cache(batch, seq);
        let hidden_btd = self.model.prefill(&inputs, &mut cache);
        let width = hidden_btd.dims()[2];
        let last_bd = hidden_btd.narrow(1, seq - 1, 1).reshape([batch, width]);
        Ok(Prefilled { cache, logits_pv: self.model.logits(last_bd), next_position: inputs.next_position })
    }

    /// Feeds one token per row and returns the logits of the next ones, `[rows, vocab]`.
    pub(crate) fn decode(&self, rows: &[DecodeInput], cache: &mut KvCache) -> Tensor<2> {
        // All sequences end at the same column. What lies before the longest one is padding in every row.
        let longest = rows.iter().map(|row| row.tokens).max().unwrap_or(0);
        cache.forget((cache.len() + 1).saturating_sub(longest));
        let end = cache.len() + 1;
        let tokens: Vec<u32> = rows.iter().map(|row| row.token).collect();
        let positions: Vec<RopePosition> = rows.iter().map(|row| row.position).collect();
        let spans: Vec<Range<usize>> = rows.iter().map(|row| end - row.tokens..end).collect();
        let hidden_btd = self.model.decode(&tokens, &positions, &spans, cache, &self.device);
        let width = hidden_btd.dims()[2];
        self.model.logits(hidden_btd.reshape([rows.len(), width]))
    }

    /// Returns row numbers as a tensor.
    pub(crate) fn index(&self, rows: &[usize]) -> Tensor<1, Int> {
        let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let count = rows.len();
        Tensor::from_data(TensorData::new(rows, [count]), &self.device)
    }
}
