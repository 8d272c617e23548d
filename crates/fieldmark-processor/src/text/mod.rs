//! Conversations to token ids: chat template, tokenizer, and token ids back to text as they arrive.

pub mod chat;
mod text_stream;
mod tokenizer;
mod tokenizer_train;

pub use text_stream::TextStream;
pub use tokenizer::{SpecialTokens, Tokenizer, special};
pub use tokenizer_train::train_tokenizer;
