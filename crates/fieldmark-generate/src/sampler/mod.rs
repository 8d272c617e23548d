//! Chooses the next token of every row of a batch from its logits.
//!
//! [`exact`] defines the distribution. On the CPU [`host`] draws from it, on other devices [`device`]; both never sort:
//! a token is drawn from all of them, and drawn again from the more likely ones if it is outside of top-p.

mod device;
mod exact;
mod host;
mod kernels;

use std::collections::BTreeSet;

use burn::tensor::{Device, Tensor};
use fieldmark_model::host::is_host;
use fieldmark_stream::RandomStream;
use serde::{Deserialize, Serialize};

use crate::error::GenerateError;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Divides the logits; 0 always takes the most likely token.
    pub temperature: f64,
    /// Keeps this many of the most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the most likely tokens that together have this probability; 1 keeps all.
    pub top_p: f64,
    /// Keeps the tokens that are at least this likely beside the most likely one; 0 keeps all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub min_p: f64,
    /// Divides the positive and multiplies the negative logits of tokens already in prompt or response; 1 is no
    /// penalty.
    pub repetition_penalty: f64,
}

impl Sampling {
    /// Always takes the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0 }
    }

    /// Draws at `temperature` from the most likely tokens that together have probability `top_p`.
    pub fn nucleus(temperature: f64, top_p: f64) -> Self {
        Self { temperature, top_p, ..Self::greedy() }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// Returns [`GenerateError::Setting`] for the first invalid value.
    pub fn validate(&self) -> Result<(), GenerateError> {
        let refuse = |key, reason: &str| Err(GenerateError::Setting { key, reason: reason.into() });
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return refuse("temperature", "must be 0 (greedy) or a positive number");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", "must be above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min_p", "must be between 0 and 1; 0 keeps all tokens");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return refuse("repetition_penalty", "must be a positive number; 1 is no penalty");
        }
        Ok(())
    }

    /// Returns the temperature of the log-probabilities: 1 for greedy.
    fn logp_temperature(&self) -> f64 {
        if self.temperature == 0.0 { 1.0 } else { self.temperature }
    }

    /// Returns a logit with the repetition penalty.
    fn penalised(&self, logit: f32) -> f32 {
        let (logit, penalty) = (f64::from(logit), self.repetition_penalty);
        (if logit < 0.0 { logit * penalty } else { logit / penalty }) as f32
    }
}

/// A file does not name `min_p` unless it is used.
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// The token chosen for a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Choice {
    pub(crate) token: u32,
    /// The log-probability of the token at the sampling temperature (1 for greedy) over the whole vocabulary, without
    /// penalty, bans and dropped tokens: the value that a trainer recomputes. It is not finite where a logit is not.
    pub(crate) logp: f64,
}

/// What a row of the batch brings along.
pub(crate) struct RowState<'a> {
    /// The tokens of prompt and response, for the repetition penalty.
    pub(crate) seen: &'a BTreeSet<u32>,
    pub(crate) stream: &'a mut RandomStream,
}

/// Draws with one set of settings on one device.
#[derive(Debug, Clone)]
pub(crate) enum Sampler {
    /// Tensors are ordinary memory: a loop over them costs no copy.
    Host(host::HostSampler),
    /// Tensors stay where they are.
    Device(Box<device::DeviceSampler>),
}

impl Sampler {
    /// Creates a sampler over `vocab` tokens that never chooses one of `banned`.
    pub(crate) fn new(sampling: Sampling, banned: Vec<u32>, vocab: usize, device: &Device) -> Self {
        if is_host(device) {
            Self::Host(host::HostSampler { sampling, banned })
        } else {
            Self::Device(Box::new(device::DeviceSampler::new(sampling, &banned, vocab, device)))
        }
    }

    /// Chooses a token for each of `rows`; row i of `logits_bv` belongs to `rows[i]`.
    pub(crate) fn next(&self, logits_bv: Tensor<2>, rows: &mut [RowState<'_>]) -> Vec<Choice> {
        match self {
            Self::Host(sampler) => sampler.next(logits_bv, rows),
            Self::Device(sampler) => sampler.next(logits_bv, rows),
        }
    }
}

#[cfg(test)]
mod tests;
