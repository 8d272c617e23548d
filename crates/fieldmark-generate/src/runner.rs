//! Runs the model: prefills a batch of prompts, decodes one token per row, selects rows of the cache.

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

/// A batch of prompts after the model has read them, one entry per prompt.
pub(crate) struct Prefilled {
    pub(crate) cache: KvCache,
    /// Logits of the first new token, `[vocab]` each.
    pub(crate) logits: Vec<Vec<f32>>,
    /// Rope position of the first new token.
    pub(crate) next_position: Vec<RopePosition>,
    /// Span of the prompt's tokens in its left-padded row.
    pub(crate) spans: Vec<Range<usize>>,
}

impl ModelRunner<'_> {
    pub(crate) fn prefill(&self, prompts: &[Sequence]) -> Result<Prefilled, GenerateError> {
        let inputs = collate(prompts, Padding::Left, self.pad_id, None, self.model.config(), &self.device)?;
        let [batch, seq] = inputs.dims();
        let mut cache = KvCache::new(self.model.config().text.num_hidden_layers, 0);
        let hidden_btd = self.model.prefill(&inputs, &mut cache);
        let width = hidden_btd.dims()[2];
        let last_bd = hidden_btd.narrow(1, seq - 1, 1).reshape([batch, width]);
        let logits = to_rows(self.model.logits(last_bd));
        Ok(Prefilled { cache, logits, next_position: inputs.next_position, spans: inputs.rows })
    }

    /// Feeds one token per row and returns the logits of the next ones, `[vocab]` each.
    pub(crate) fn decode(&self, rows: &[DecodeInput], cache: &mut KvCache) -> Vec<Vec<f32>> {
        let tokens: Vec<u32> = rows.iter().map(|row| row.token).collect();
        let positions: Vec<RopePosition> = rows.iter().map(|row| row.position).collect();
        let spans: Vec<Range<usize>> = rows.iter().map(|row| row.span.clone()).collect();
        let hidden_btd = self.model.decode(&tokens, &positions, &spans, cache, &self.device);
        let width = hidden_btd.dims()[2];
        to_rows(self.model.logits(hidden_btd.reshape([rows.len(), width])))
    }

    /// Row i of the cache, which has `batch` rows, becomes what row `rows[i]` was. Copies nothing if that changes
    /// nothing.
    pub(crate) fn select(&self, cache: &mut KvCache, rows: &[usize], batch: usize) {
        if rows.len() == batch && rows.iter().enumerate().all(|(i, &row)| i == row) {
            return;
        }
        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        cache.select(Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &self.device));
    }
}

fn to_rows(logits_bv: Tensor<2>) -> Vec<Vec<f32>> {
    let vocab = logits_bv.dims()[1];
    let values: Vec<f32> = logits_bv.into_data().iter::<f32>().collect();
    values.chunks(vocab).map(<[f32]>::to_vec).collect()
}
