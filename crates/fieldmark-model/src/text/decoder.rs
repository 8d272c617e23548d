//! The decoder: maps embeddings of tokens and images to hidden states.
//!
//! Reference: `Qwen2_5_VLTextModel`.

use burn::{
    module::Module,
    nn::{Embedding, EmbeddingConfig, RmsNorm, RmsNormConfig},
    tensor::{DType, Device, Int, Tensor},
};

use super::{block::TextBlock, rope::text_rotary};
use crate::{
    attention::{AttentionLayout, KvCache, rotary::Rotary},
    block::AttentionBlock,
    config::TextConfig,
    norm::rms_norm,
};

/// The decoder: embedding, blocks and final norm.
#[derive(Module, Debug)]
pub struct TextDecoder {
    pub(crate) embed_tokens: Embedding,
    pub(crate) layers: Vec<TextBlock>,
    pub(crate) norm: RmsNorm,
    #[module(skip)]
    config: TextConfig,
}

impl TextConfig {
    /// Returns a new decoder. Burn initialises each parameter with its default at first use.
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
    /// Returns hidden states after the final norm, `[batch, seq, width]`.
    ///
    /// `x_btd` are embeddings, and `position_ids` is `[3, batch, seq]`. `layout` says which tokens attend to which; with a
    /// cache, each row also sees the row's cached tokens.
    pub fn forward(
        &self,
        x_btd: Tensor<3>,
        position_ids: Tensor<3, Int>,
        layout: AttentionLayout,
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        self.run(x_btd, position_ids, layout, cache, |_| ())
    }

    /// Like [`Self::forward`], but also calls `see` with each block's output.
    pub(crate) fn run(
        &self,
        mut x_btd: Tensor<3>,
        position_ids: Tensor<3, Int>,
        layout: AttentionLayout,
        cache: Option<&mut KvCache>,
        mut see: impl FnMut(Tensor<3>),
    ) -> Tensor<3> {
        let plan = self.plan(position_ids, layout, x_btd.dtype(), &x_btd.device());
        let mut caches = cache.map(|cache| cache.layers.iter_mut());
        for layer in &self.layers {
            x_btd = match caches.as_mut().and_then(Iterator::next) {
                Some(cache) => layer.run_cached(x_btd, &plan.rotary, &plan.layout, cache),
                None => layer.run(x_btd, &plan.rotary, &plan.layout),
            };
            see(x_btd.clone());
        }
        rms_norm(&self.norm, x_btd)
    }

    /// Returns rotary embedding and attention layout of a batch on `device`, for activations of `dtype`.
    pub fn plan(
        &self,
        position_ids: Tensor<3, Int>,
        layout: AttentionLayout,
        dtype: DType,
        device: &Device,
    ) -> TextPlan {
        TextPlan { rotary: text_rotary(position_ids, &self.config, dtype, device), layout }
    }

    /// Returns the blocks. Run each with the plan's rotary embedding and layout.
    pub fn blocks(&self) -> &[TextBlock] {
        &self.layers
    }

    /// Applies the final norm to `[batch, seq, width]`.
    pub fn final_norm(&self, x_btd: Tensor<3>) -> Tensor<3> {
        rms_norm(&self.norm, x_btd)
    }
}

/// Rotary embedding and attention layout of a batch of sequences, shared by all blocks.
#[derive(Debug, Clone)]
pub struct TextPlan {
    /// Rotary embedding of the tokens.
    pub rotary: Rotary,
    /// Which tokens attend to which.
    pub layout: AttentionLayout,
}
