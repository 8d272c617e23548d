//! Supervised fine-tuning and TAPO: losses, optimiser, rollouts, trainers.
//!
//! Every room is a module: [`sft`] and [`tapo`] are the two stages, [`trainer`] is the frame that they share; [`gradient`],
//! [`optim`], [`parallel`], [`params`] and [`reward`] are what they are made of; [`memory`] plans what they need.
//!
//! Letters at the end of a tensor's name are its axes: b batch, t sequence, r response, d width, n rows, v vocabulary.

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

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
