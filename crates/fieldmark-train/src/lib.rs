//! Supervised fine-tuning and TAPO: losses, optimiser, rollouts, trainers.
//!
//! [`sft`] and [`tapo`] are the two stages; [`trainer`] has their training loop; [`gradient`], [`optim`], [`parallel`],
//! [`params`] and [`reward`] are their parts; [`memory`] estimates the memory that they need. The letters at the end of
//! a tensor's name are its axes: b batch, t sequence, r response, d width, n rows, v vocabulary.

mod error;
pub mod gradient;
pub mod memory;
pub mod optim;
pub mod parallel;
pub mod params;
pub mod reward;
pub mod sft;
pub mod tapo;
pub mod trainer;

pub use error::TrainError;
pub use trainer::{TrainEvent, Trainer};

/// Compiles the examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
