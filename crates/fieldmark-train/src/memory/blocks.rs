//! Activations of one block of the decoder or the encoder, in bytes: what its tapes keep, and what its passes take.
//!
//! Counted on `text/block.rs`, `vision/block.rs`, `mlp.rs` and `trunk.rs` with what Burn 0.22's autodiff keeps: both
//! factors of a product, the input of a linear map, of a root and of a sigmoid; nothing of sums, views and joins.

use fieldmark_model::{TextConfig, VisionConfig, attention::CAUSAL_CHUNK};

const F32: f64 = 4.0;

/// Widths of a block, per token.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockSizes {
    /// Of the residual stream, which is also that of the queries.
    width: f64,
    /// Of the keys, and of the values.
    shared: f64,
    /// Of what the tape keeps alive for the values: where they are a view of the fused projection, all of it.
    values: f64,
    /// Inside the MLP.
    inner: f64,
    heads: f64,
    /// Query heads that share a key head.
    group: f64,
    /// Bytes of a number.
    number: f64,
}

/// Tokens that go through a block together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens {
    /// All of them.
    pub count: f64,
    /// Sequences, or images.
    pub items: f64,
    /// Tokens of the longest that attend to each other.
    pub longest: f64,
    /// Whether they lie in several pieces that attention joins.
    pub joined: bool,
    /// Whether a query sees only what is before it.
    pub causal: bool,
}

impl Tokens {
    /// The mask of a causal batch, a byte an entry.
    pub(super) fn mask(&self) -> f64 {
        if self.causal { self.longest * self.longest } else { 0.0 }
    }
}

impl BlockSizes {
    pub(super) fn text(config: &TextConfig, number: f64) -> Self {
        let shared = (config.num_key_value_heads * config.head_dim()) as f64;
        Self {
            width: config.hidden_size as f64,
            shared,
            values: shared,
            inner: config.intermediate_size as f64,
            heads: config.num_attention_heads as f64,
            group: (config.num_attention_heads / config.num_key_value_heads) as f64,
            number,
        }
    }

    pub(super) fn vision(config: &VisionConfig, number: f64) -> Self {
        let width = config.hidden_size as f64;
        Self {
            width,
            shared: width,
            values: 3.0 * width,
            inner: config.intermediate_size as f64,
            heads: config.num_heads as f64,
            group: 1.0,
            number,
        }
    }

    /// The block's input: all that is kept of a block that is run again.
    pub(super) fn input(&self, tokens: &Tokens) -> f64 {
        tokens.count * self.width * self.number
    }

    /// All that the tapes of a block keep, its input included: input, normed, scaled; queries, keys, values; attended; and
    /// what [`Self::finish`] counts.
    pub(super) fn tape(&self, tokens: &Tokens) -> f64 {
        let before = 5.0 * self.width + self.shared + self.values;
        tokens.count * (before * self.number + self.norm()) + self.finish(tokens)
    }

    /// The part of [`Self::tape`] behind attention: the sum, normed, scaled; of the MLP gate, sigmoid, their product, up,
    /// and the product of all; where attention's result is not in one piece already, a copy of it that is.
    pub(super) fn finish(&self, tokens: &Tokens) -> f64 {
        let copy = if tokens.joined { 0.0 } else { self.width };
        tokens.count * ((3.0 * self.width + copy + 5.0 * self.inner) * self.number + self.norm())
    }

    /// A norm's mean square and root, and in half precision its input in f32.
    fn norm(&self) -> f64 {
        1.5 * F32 + if self.number < F32 { self.width * F32 } else { 0.0 }
    }

    /// Gradients at the MLP's widest place, beside its tape.
    pub(super) fn feed_forward_backward(&self, tokens: &Tokens) -> f64 {
        tokens.count * (2.0 * self.width + 2.0 * self.inner) * self.number
    }

    /// Gradients of queries, keys, values and result, and three tensors of the scores of `chunk` queries (0: all).
    pub(super) fn attention_backward(&self, tokens: &Tokens, chunk: usize) -> f64 {
        let queries = if chunk == 0 { tokens.longest } else { tokens.longest.min(chunk as f64) };
        let scores = tokens.items * self.heads * queries * tokens.longest * F32;
        tokens.count * (3.0 * self.width + 2.0 * self.shared) * self.number + 3.0 * scores
    }

    /// A pass without a tape at its widest place: the MLP or attention.
    pub(super) fn forward(&self, tokens: &Tokens) -> f64 {
        let attention =
            tokens.count * (4.0 * self.width + self.shared + self.values) * self.number + self.masks(tokens);
        self.feed_forward(tokens).max(attention)
    }

    /// The MLP's part of it.
    fn feed_forward(&self, tokens: &Tokens) -> f64 {
        tokens.count * (2.0 * self.width + 3.0 * self.inner) * self.number
    }

    /// What adapters add to the MLP's backward pass: the gradient that comes through them beside that through the layer.
    pub(super) fn adapters(&self, tokens: &Tokens) -> f64 {
        tokens.count * 2.0 * self.inner * self.number
    }

    /// The mask as the fused attention takes it, for every head and a chunk of the queries.
    pub(super) fn masks(&self, tokens: &Tokens) -> f64 {
        if !tokens.causal {
            return 0.0;
        }
        tokens.longest.min(CAUSAL_CHUNK as f64) * tokens.longest * (self.group + tokens.items * self.heads)
    }
}
