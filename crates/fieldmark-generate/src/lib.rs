//! Batched, cached decoding: requests, sampler, stop tokens, random streams.
//!
//! The cache and the random streams belong to a call and its sequences, never to the model.

#![allow(non_snake_case)]

mod config;
mod error;
mod generator;
mod sampler;
mod stream;

pub use config::{CheckpointGeneration, GenerationConfig};
pub use error::GenerateError;
pub use generator::{FinishReason, Generator, NewToken, Request, Response};
pub use sampler::Sampling;
pub use stream::{RandomStream, StreamKey};
