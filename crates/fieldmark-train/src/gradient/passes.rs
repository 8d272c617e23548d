//! The keys of `[sft]` and `[tapo]` that decide how an update is cut into passes, and so how much memory it needs.

use super::trunk::TrunkSettings;

/// How the sequences of an update go through the network. These settings change memory and speed; results agree up to
/// rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passes {
    /// Maximum number of sequences (SFT) or responses (TAPO) in a micro-batch.
    pub micro_batch: usize,
    /// Maximum number of tokens in a micro-batch; a longer sequence is alone in one. 0 sets no limit.
    pub micro_tokens: usize,
    /// Concatenate the sequences of a micro-batch, each attending only to itself, instead of padding them. Responses to the
    /// same prompt share it.
    pub packing: bool,
    /// Recompute each block in the backward pass instead of keeping its activations.
    pub recompute: bool,
    /// Number of queries whose attention scores exist at a time in the backward pass; 0 takes all at once.
    pub query_chunk: usize,
    /// Number of positions whose logits are computed at a time.
    pub logit_chunk: usize,
    /// Number of micro-batches computed at the same time on each device.
    pub workers: usize,
}

impl Passes {
    /// The settings of the network below the head.
    pub fn trunk(&self) -> TrunkSettings {
        TrunkSettings { recompute: self.recompute, query_chunk: self.query_chunk }
    }
}
