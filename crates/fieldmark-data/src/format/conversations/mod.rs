//! Conversations for SFT. One row is one conversation, in one of these forms:
//!
//! | Form | Its fields | Described in |
//! | --- | --- | --- |
//! | OpenAI, Qwen, TRL, LLaMA-Factory | `messages` of `role` and `content`, `images` | `sharegpt.rs` |
//! | ShareGPT, LLaVA | `conversations` of `from` and `value`, `image` | `sharegpt.rs` |
//! | TRL, prompt and completion | `prompt` and `completion`, both lists of messages | `sharegpt.rs` |
//! | Alpaca | `instruction`, `input`, `output` | `alpaca.rs` |
//!
//! The content of a message is a string or a list of parts (`parts.rs`). A row may have no image. If it has one image and
//! no `<image>`, the image is put first.

mod alpaca;
mod draft;
mod example;
mod parts;
mod read;
mod sharegpt;

pub use example::{SftExample, Turn, TurnRole};
pub use read::read_conversations;
pub use sharegpt::ShareGptFormat;
