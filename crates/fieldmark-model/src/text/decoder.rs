//! The decoder: token and image embeddings in, hidden states out.
//!
//! Reference: `Qwen2_5_VLTextModel`.

use std::ops::Range;

use burn::{
    module::Module,
    nn::{Embedding, EmbeddingConfig, RmsNorm, RmsNormConfig},
    tensor::{DType, Device, Int, Tensor},
};

use super::{block::TextBlock, rope::text_rotary};
use crate::{
    attention::{AttentionLayout, AttentionMask, KvCache, rotary::Rotary},
    block::AttentionBlock,
    config::TextConfig,
};

/// Embedding, blocks and final norm.
#[derive(Module, Debug)]
pub struct TextDecoder {
    pub(crate) embed_tokens: Embedding,
    pub(crate) layers: Vec<TextBlock>,
    pub(crate) norm: RmsNorm,
    #[module(skip)]
    config: TextConfig,
}

impl TextConfig {
    /// A new decoder with Burn's default initialisation, parameter by parameter at first use.
    pub fn init(&self, device: &Device) -> TextDecoder {
        TextDecoder {
            embed_tokens: EmbeddingConfig::new(self.vocab_size, self.hidden_size).init(device),
            layers: (0..self.num_hidden_layers).map(|_| TextBlock::new(self, device)).collect(),
            norm: RmsNormConfig::new(self.hidden_size).with_epsilon(self.rms_norm_eps).init(device),
            config: self.clone(),
        }
    }
}

impl TextDecoder {
    /// Hidden states after the final norm, `[batch, seq, width]`.
    ///
    /// `x_btd` are embeddings, `position_ids` is `[3, batch, seq]`, `rows` says where the real tokens of each row lie,
    /// counted over cached and new tokens together; or, more than one for a batch of one row, where the sequences packed
    /// into it lie.
    pub fn forward(
        &self,
        x_btd: Tensor<3>,
        position_ids: Tensor<3, Int>,
        rows: &[Range<usize>],
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        self.run(x_btd, position_ids, rows, cache, |_| ())
    }

    /// The same, with each block's output shown to `see`.
    pub(crate) fn run(
        &self,
        mut x_btd: Tensor<3>,
        position_ids: Tensor<3, Int>,
        rows: &[Range<usize>],
        cache: Option<&mut KvCache>,
        mut see: impl FnMut(Tensor<3>),
    ) -> Tensor<3> {
        let device = x_btd.device();
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        let plan = self.plan(position_ids, rows, past, x_btd.dtype(), &device);
        let mut caches = cache.map(|cache| cache.layers.iter_mut());
        for layer in &self.layers {
            x_btd = match caches.as_mut().and_then(Iterator::next) {
                Some(cache) => layer.run_cached(x_btd, &plan.rotary, &plan.layout, cache),
                None => layer.run(x_btd, &plan.rotary, &plan.layout),
            };
            see(x_btd.clone());
        }
        self.norm.forward(x_btd)
    }

    /// Positions and attention of a batch for activations of `dtype`, on `device`. `rows` as in [`Self::forward`]: one
    /// range for each row of the batch, or the places of sequences packed into a single one.
    pub fn plan(
        &self,
        position_ids: Tensor<3, Int>,
        rows: &[Range<usize>],
        past: usize,
        dtype: DType,
        device: &Device,
    ) -> TextPlan {
        let [_, batch, seq] = position_ids.dims();
        let layout = if rows.len() == batch {
            AttentionLayout::batch(AttentionMask::causal(seq, past, rows, device))
        } else {
            AttentionLayout::packed(rows, device)
        };
        TextPlan { rotary: text_rotary(position_ids, &self.config, dtype, device), layout }
    }

    /// The blocks, each to be run with the plan's rotary embedding and layout.
    pub fn blocks(&self) -> &[TextBlock] {
        &self.layers
    }

    /// The final norm, `[batch, seq, width]` to the same.
    pub fn final_norm(&self, x_btd: Tensor<3>) -> Tensor<3> {
        self.norm.forward(x_btd)
    }
}

/// What the blocks need to know of a batch of sequences.
#[derive(Debug, Clone)]
pub struct TextPlan {
    /// Rotary embedding of the tokens.
    pub rotary: Rotary,
    /// How the tokens attend.
    pub layout: AttentionLayout,
}
