//! Batched, cached decoding: requests, sampler, stop tokens.
//!
//! The cache and the random streams belong to a call and its sequences, never to the model.

#![allow(non_snake_case)]

mod config;
mod error;
mod generator;
mod sampler;

pub use config::{CheckpointGeneration, GenerationConfig};
pub use error::GenerateError;
pub use generator::{FinishReason, Generator, NewToken, Request, Response};
pub use sampler::Sampling;
