//! Conversations to token ids: chat template, tokenizer, and token ids back to text as they arrive.

pub mod chat;
mod jinja;
mod qwen2;
pub mod special;
mod text_stream;
mod tokenizer;
mod tokenizer_config;
mod tokenizer_train;
mod vocabulary;

pub use text_stream::TextStream;
pub use tokenizer::{SpecialTokens, Tokenizer};
pub use tokenizer_train::train_tokenizer;
