//! Low-rank adapters on a model: which layers carry one, what then learns, and the model with them merged.

mod adapt;
mod layers;
mod settings;
mod trainable;

pub use settings::{LoraSettings, Quantize};
