//! The decoder: its blocks and M-RoPE.

mod block;
mod decoder;
mod rope;

pub use block::{TextAttention, TextBlock};
pub use decoder::{TextDecoder, TextPlan};
pub use rope::text_rotary;
