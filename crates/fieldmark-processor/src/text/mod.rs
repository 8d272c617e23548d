//! Conversations to token ids: chat template, tokenizer, and token ids back to text as they arrive.

pub mod chat;
mod jinja;
pub mod special;
mod text_stream;
mod tokenizer;
mod tokenizer_config;
mod tokenizer_train;

pub use text_stream::TextStream;
pub use tokenizer::{SpecialTokens, Tokenizer};
pub use tokenizer_train::train_tokenizer;
