//! Fine-R1 in Rust: a vision-language model that learns to tell look-alikes apart by reasoning.

pub mod demo;
pub mod device;
pub mod memory;
mod nearest;
pub mod parity;
pub mod plan;
pub mod progress;
pub mod recipe;
mod stage;

pub use fieldmark_data as data;
pub use fieldmark_eval as eval;
pub use fieldmark_generate as generate;
pub use fieldmark_model as model;
pub use fieldmark_processor as processor;
pub use fieldmark_stream as stream;
pub use fieldmark_train as train;
pub use stage::{Stage, UnknownStage};
