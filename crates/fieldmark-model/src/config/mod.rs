//! The configuration of a network: its sizes, and `config.json`.

mod json;
mod kind;
mod sizes;

pub use self::sizes::{Qwen25VlConfig, TextConfig, VisionConfig, VisionTokens};
