//! Batched, cached decoding of Qwen2.5-VL.
//!
//! [`ChatModel`] turns a checkpoint folder and chat messages into texts; [`Generator`] turns tokenised prompts into
//! token ids and log-probabilities. The KV cache and the random streams belong to a call and its sequences, never to
//! the model.

mod chat;
mod chat_model;
mod checkpoint;
mod config;
mod error;
mod generator;
mod request;
mod response;
mod runner;
mod sampler;
mod schedule;
mod sequence;

pub use chat::Chat;
pub use chat_model::{ChatModel, Reply};
pub use checkpoint::CheckpointGeneration;
pub use config::GenerationConfig;
pub use error::GenerateError;
pub use generator::{Generator, cache_columns};
pub use request::Request;
pub use response::{FinishReason, NewToken, Response};
pub use sampler::Sampling;

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
