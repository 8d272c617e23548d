//! How far a phase of sampling is: rollouts of a step, or answers to a validation set. A phase may take many minutes.

use super::Decoding;

/// How far a phase of sampling is. Reported when a response ends and about once a second. The numbers depend on the
/// clock and are in no log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// What is sampled.
    pub part: Decoding,
    /// Rollouts: the rollout step, from 1. Validation: the number of rollout steps made before.
    pub rollout_step: usize,
    /// Number of responses finished in this phase.
    pub responses: usize,
    /// Number of responses that were asked for so far in this phase. It grows if the group filter makes a step draw
    /// more.
    pub asked: usize,
    /// Number of tokens decoded in this phase.
    pub tokens: usize,
}

/// What a worker decoded since its last report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sampled {
    pub(crate) responses: usize,
    pub(crate) tokens: usize,
}

impl Sampling {
    /// Starts a phase.
    pub(crate) fn new(part: Decoding, rollout_step: usize) -> Self {
        Self { part, rollout_step, responses: 0, asked: 0, tokens: 0 }
    }

    pub(crate) fn add(&mut self, sampled: Sampled) {
        self.responses += sampled.responses;
        self.tokens += sampled.tokens;
    }
}
