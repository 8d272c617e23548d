//! Bytes of the activations of one decoder or encoder block: what its tapes keep, and what its passes need.
//!
//! The counts follow the operations of `text/block.rs`, `vision/block.rs`, `mlp.rs` and `trunk.rs`. Burn 0.22's
//! autodiff keeps both factors of a product and the input of a linear map, a root and a sigmoid; it keeps nothing for
//! sums, views and joins. In f32 on the CPU, norm and gate are operations of our own (`host` of the model's crate).

use fieldmark_model::{TextConfig, VisionConfig, attention::CAUSAL_CHUNK};

const F32: f64 = 4.0;

/// Widths of a block, in numbers per token.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockSizes {
    /// Width of the residual stream, and of the queries.
    width: f64,
    /// Width of the keys, and of the values.
    shared: f64,
    /// Width of what the tape keeps alive for the values. If they are a view of the fused projection, it is all of
    /// that.
    values: f64,
    /// Width inside the MLP.
    inner: f64,
    heads: f64,
    /// Number of query heads that share a key head.
    group: f64,
    /// Bytes per number.
    number: f64,
    /// Whether norms and the gate of the MLP are one operation each, as in f32 on the CPU. Such an operation keeps its
    /// inputs alone.
    fused: bool,
}

/// The tokens that go through a block together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens {
    /// Number of all tokens.
    pub count: f64,
    /// Number of sequences or images that attend together; of responses, those to one prompt.
    pub items: f64,
    /// Largest number of tokens that attend to each other.
    pub longest: f64,
    /// Number of these tokens that are queries in each item: without a shared prompt, all.
    pub queries: f64,
    /// Number of tokens of a prompt that the items share, or 0.
    pub prompt: f64,
    /// Whether attention joins its result from several pieces.
    pub joined: bool,
    /// Whether a query attends only to earlier tokens and itself.
    pub causal: bool,
}

impl Tokens {
    /// Sequences of one length in a padded batch.
    pub(super) fn causal(items: f64, longest: f64) -> Self {
        Self { count: items * longest, items, longest, queries: longest, prompt: 0.0, joined: false, causal: true }
    }

    /// Images of one size.
    pub(super) fn frames(items: f64, longest: f64) -> Self {
        Self { joined: true, causal: false, ..Self::causal(items, longest) }
    }

    /// The number of scores of a head if each item's queries are computed `chunk` at a time (0 means all): of the items or,
    /// if that is more, of their prompt.
    fn scores(&self, chunk: usize) -> f64 {
        let at_once = |queries: f64| if chunk == 0 { queries } else { queries.min(chunk as f64) };
        let items = self.items * at_once(self.queries) * self.longest;
        items.max(at_once(self.prompt) * self.prompt)
    }

    /// Bytes of the mask of a causal batch, one per entry.
    pub(super) fn mask(&self) -> f64 {
        if self.causal { self.longest * self.longest } else { 0.0 }
    }
}

impl BlockSizes {
    pub(super) fn text(config: &TextConfig, number: f64, fused: bool) -> Self {
        let shared = (config.num_key_value_heads * config.head_dim()) as f64;
        Self {
            width: config.hidden_size as f64,
            shared,
            values: shared,
            inner: config.intermediate_size as f64,
            heads: config.num_attention_heads as f64,
            group: (config.num_attention_heads / config.num_key_value_heads) as f64,
            number,
            fused,
        }
    }

    pub(super) fn vision(config: &VisionConfig, number: f64, fused: bool) -> Self {
        let width = config.hidden_size as f64;
        Self {
            width,
            shared: width,
            values: 3.0 * width,
            inner: config.intermediate_size as f64,
            heads: config.num_heads as f64,
            group: 1.0,
            number,
            fused,
        }
    }

    /// Bytes of the block's input. Nothing else is kept of a block that is run again.
    pub(super) fn input(&self, tokens: &Tokens) -> f64 {
        tokens.count * self.width * self.number
    }

    /// Bytes of everything that the tapes of a block keep: its input, normed, and scaled; queries, keys, and values;
    /// the result of attention; and the part that [`Self::finish`] counts.
    pub(super) fn tape(&self, tokens: &Tokens) -> f64 {
        let before = self.of_forms(4.0, 5.0) * self.width + self.shared + self.values;
        tokens.count * (before * self.number + self.norm()) + self.finish(tokens)
    }

    /// The part of [`Self::tape`] behind attention: the residual sum, normed, and scaled; in the MLP the gate, its
    /// sigmoid, their product, the up projection, and the product of all. If attention does not return its result in
    /// one piece, there is also a contiguous copy of it.
    pub(super) fn finish(&self, tokens: &Tokens) -> f64 {
        let copy = if tokens.joined { 0.0 } else { self.width };
        let (widths, inner) = (self.of_forms(2.0, 3.0), self.of_forms(3.0, 5.0));
        tokens.count * ((widths * self.width + copy + inner * self.inner) * self.number + self.norm())
    }

    /// Returns one of two numbers: for operations in one pass, or as Burn composes them.
    fn of_forms(&self, fused: f64, composed: f64) -> f64 {
        if self.fused { fused } else { composed }
    }

    /// Bytes of a norm: the mean square and its root and, in half precision, the input in f32.
    fn norm(&self) -> f64 {
        if self.fused {
            return 0.0;
        }
        1.5 * F32 + if self.number < F32 { self.width * F32 } else { 0.0 }
    }

    /// Bytes of gradients at the widest point of the MLP, in addition to its tape.
    pub(super) fn feed_forward_backward(&self, tokens: &Tokens) -> f64 {
        tokens.count * (2.0 * self.width + self.of_forms(1.0, 2.0) * self.inner) * self.number
    }

    /// Bytes of the gradients of queries, keys, values and result, and of three tensors of scores for `chunk` queries
    /// (0 means all).
    pub(super) fn attention_backward(&self, tokens: &Tokens, chunk: usize) -> f64 {
        let scores = self.heads * tokens.scores(chunk) * F32;
        let gradients = tokens.count * (3.0 * self.width + 2.0 * self.shared) * self.number;
        gradients + 3.0 * scores + 2.0 * self.seen(tokens)
    }

    /// Bytes of the keys and values of a shared prompt, repeated for the items with their own behind them.
    fn seen(&self, tokens: &Tokens) -> f64 {
        if tokens.prompt == 0.0 {
            return 0.0;
        }
        2.0 * tokens.items * tokens.longest * self.shared * self.number
    }

    /// Bytes at the widest point of a pass without a tape: in the MLP or in attention.
    pub(super) fn forward(&self, tokens: &Tokens) -> f64 {
        let attention =
            tokens.count * (4.0 * self.width + self.shared + self.values) * self.number + self.masks(tokens);
        self.feed_forward(tokens).max(attention + self.seen(tokens))
    }

    /// Bytes at the widest point of the MLP in a pass without a tape.
    fn feed_forward(&self, tokens: &Tokens) -> f64 {
        tokens.count * (2.0 * self.width + self.of_forms(2.0, 3.0) * self.inner) * self.number
    }

    /// Bytes that adapters add to the backward pass of the MLP: a second gradient, which comes through the adapters.
    pub(super) fn adapters(&self, tokens: &Tokens) -> f64 {
        tokens.count * 2.0 * self.inner * self.number
    }

    /// Bytes of the mask for the fused attention, for every head and one chunk of queries.
    pub(super) fn masks(&self, tokens: &Tokens) -> f64 {
        if !tokens.causal {
            return 0.0;
        }
        tokens.queries.min(CAUSAL_CHUNK as f64) * tokens.longest * (self.group + tokens.items * self.heads)
    }
}
