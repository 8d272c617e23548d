//! The errors of decoding.

use std::path::PathBuf;

/// An error of decoding; it names the sample, key or file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A prompt leaves no room in the context for a new token.
    #[error(
        "{sample}: the prompt has {tokens} tokens, but the model's context is {context}; shorten it or use fewer pixels"
    )]
    Context {
        /// The name of the sample.
        sample: String,
        /// The number of tokens in its prompt.
        tokens: usize,
        /// The model's `max_position_embeddings`.
        context: usize,
    },
    /// A setting has an invalid value.
    #[error("generation: `{key}` {reason}")]
    Setting {
        /// The name of the setting.
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
    /// A checkpoint folder or its `generation_config.json` cannot be read.
    #[error("{path}: {reason}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The model computed logits that are not finite.
    #[error("{sample}: the logits of new token {step} (from 0) are not finite; check weights and device")]
    NotFinite {
        /// The name of the sample.
        sample: String,
        /// The number of new tokens before it.
        step: usize,
    },
    /// The flag of [`Generator::with_stop`](crate::Generator::with_stop) was set before all responses were finished.
    #[error("decoding was stopped before all responses were finished")]
    Stopped,
    /// A chat or a batch could not be prepared.
    #[error(transparent)]
    Processor(#[from] fieldmark_processor::ProcessorError),
    /// The weights could not be loaded.
    #[error(transparent)]
    Model(#[from] fieldmark_model::ModelError),
}
