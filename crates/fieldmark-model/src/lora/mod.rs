//! Low-rank adapters: their settings, adding and merging them, and which parameters are trained.

mod adapt;
mod layers;
mod settings;
mod trainable;

pub use settings::{LoraSettings, Quantize};
