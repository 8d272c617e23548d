//! Low-rank adapters: their settings, adding and merging them, and which parameters are trained.

mod adapt;
mod layers;
mod settings;
mod trainable;

pub(crate) use adapt::not_quantisable;
pub(crate) use settings::is_called;
pub use settings::{LoraSettings, Quantize};
