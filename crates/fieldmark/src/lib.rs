//! Fine-R1 in Rust: a vision-language model that learns to tell look-alikes apart by reasoning.
//!
//! This crate runs whole stages: [`recipe`]s, [`source`]s of samples, [`checkpoint`]s, run [`folder`]s, [`log`]s, and
//! the runs themselves in [`run`]. It re-exports the crates that it builds on: [`model`], [`processor`], [`generate`],
//! [`data`], [`train`], [`eval`], [`world`] and [`stream`].

pub mod checkpoint;
pub mod demo;
pub mod device;
#[cfg(doctest)]
mod docs;
mod error;
pub mod field_guide;
pub mod folder;
pub mod init;
pub mod log;
mod nearest;
pub mod plan;
pub mod recipe;
pub mod run;
pub mod source;
mod stage;

pub use checkpoint::Checkpoint;
pub use error::RunError;
pub use fieldmark_data as data;
pub use fieldmark_eval as eval;
pub use fieldmark_generate as generate;
pub use fieldmark_model as model;
pub use fieldmark_processor as processor;
pub use fieldmark_stream as stream;
pub use fieldmark_train as train;
pub use fieldmark_world as world;
pub use stage::{Stage, UnknownStage};
