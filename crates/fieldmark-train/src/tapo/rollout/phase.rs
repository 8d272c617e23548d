//! The progress of a phase of sampling, passed on as events.

use crate::{
    TrainError, TrainEvent,
    trainer::{Decoding, OnEvent, Sampled, Sampling},
};

/// A phase of sampling: the rollouts of a step, or the answers to a validation set.
pub(in crate::tapo) struct Phase {
    at: Sampling,
    /// The first error of a receiver, which workers cannot be told.
    error: Option<TrainError>,
}

impl Phase {
    pub(in crate::tapo) fn new(part: Decoding, rollout_step: usize) -> Self {
        Self { at: Sampling::new(part, rollout_step), error: None }
    }

    /// Notes that `responses` more responses are asked for.
    pub(in crate::tapo) fn asks_for(&mut self, responses: usize, on_event: &mut OnEvent<'_>) -> Result<(), TrainError> {
        self.at.asked += responses;
        on_event(TrainEvent::Sampling(&self.at))
    }

    /// Passes on what was decoded. An error of the receiver is kept for [`Self::check`].
    pub(in crate::tapo) fn hear(&mut self, sampled: Sampled, on_event: &mut OnEvent<'_>) {
        self.at.add(sampled);
        if self.error.is_none() {
            self.error = on_event(TrainEvent::Sampling(&self.at)).err();
        }
    }

    /// Returns the error that a receiver returned.
    pub(in crate::tapo) fn check(&mut self) -> Result<(), TrainError> {
        self.error.take().map_or(Ok(()), Err)
    }
}
