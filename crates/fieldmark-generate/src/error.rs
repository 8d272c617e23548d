//! What can go wrong while decoding.

use std::path::PathBuf;

/// Every error names the sample, key or file it is about and what to do.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A prompt leaves no room for a single new token.
    #[error(
        "{sample}: the prompt has {tokens} tokens and the model's context is {context}: shorten it or use fewer pixels"
    )]
    Context {
        /// Which sample.
        sample: String,
        /// Tokens in its prompt.
        tokens: usize,
        /// The model's `max_position_embeddings`.
        context: usize,
    },
    /// A setting has no meaning.
    #[error("generation: `{key}` {reason}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// `generation_config.json` cannot be read.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The model gave logits that are not finite.
    #[error("{sample}: token {step} has logits that are not finite: the weights or the device's arithmetic are broken")]
    NotFinite {
        /// Which sample.
        sample: String,
        /// New tokens before it.
        step: usize,
    },
    /// The batch could not be made.
    #[error(transparent)]
    Processor(#[from] fieldmark_processor::ProcessorError),
}
