//! Attention: forward and backward pass, masks, which tokens attend to which, KV cache and rotary embedding.

mod backward;
mod cache;
mod forward;
mod layout;
mod mask;
pub mod rotary;

pub(crate) use layout::Tile;

pub use backward::attention_backward;
pub use cache::{KvCache, LayerCache};
pub use forward::{CAUSAL_CHUNK, attend};
pub use layout::AttentionLayout;
pub use mask::AttentionMask;
