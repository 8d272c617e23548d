//! The decoder: token and image embeddings in, hidden states out.
//!
//! Reference: `Qwen2_5_VLTextModel`.

mod block;
mod rope;

use std::ops::Range;

use burn::{
    module::Module,
    nn::{Embedding, EmbeddingConfig, RmsNorm, RmsNormConfig},
    tensor::{Device, Int, Tensor},
};

pub use block::{TextAttention, TextBlock};
pub use rope::text_rotary;

use crate::{attention::AttentionMask, cache::KvCache, config::TextConfig};

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
    /// `x_BTD` are embeddings, `position_ids` is `[3, batch, seq]`, `rows` says where the real tokens of each row lie,
    /// counted over cached and new tokens together.
    pub fn forward(
        &self,
        x_BTD: Tensor<3>,
        position_ids: Tensor<3, Int>,
        rows: &[Range<usize>],
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        self.run(x_BTD, position_ids, rows, cache, |_| ())
    }

    /// The same, with each block's output shown to `see`.
    pub(crate) fn run(
        &self,
        mut x_BTD: Tensor<3>,
        position_ids: Tensor<3, Int>,
        rows: &[Range<usize>],
        cache: Option<&mut KvCache>,
        mut see: impl FnMut(Tensor<3>),
    ) -> Tensor<3> {
        let device = x_BTD.device();
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        let mask = AttentionMask::causal(x_BTD.dims()[1], past, rows, &device);
        let rotary = text_rotary(position_ids, &self.config, x_BTD.dtype(), &device);
        let mut caches = cache.map(|cache| cache.layers.iter_mut());
        for layer in &self.layers {
            let cache = caches.as_mut().and_then(Iterator::next);
            x_BTD = layer.forward(x_BTD, &rotary, &mask, cache);
            see(x_BTD.clone());
        }
        self.norm.forward(x_BTD)
    }
}
