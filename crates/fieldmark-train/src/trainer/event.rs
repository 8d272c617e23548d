//! The events that a trainer reports during a step.

use super::{DecodingTiming, Finding, UpdateTiming};
use crate::{
    TrainError,
    sft::SftMetrics,
    tapo::{RolloutMetrics, TapoMetrics, TapoValidation, rollout::Group},
};

/// An event of a step. SFT reports only [`Self::SftUpdate`]; TAPO reports all the others.
#[derive(Debug, Clone, Copy)]
pub enum TrainEvent<'a> {
    /// SFT made an update.
    SftUpdate(&'a SftMetrics, &'a UpdateTiming),
    /// A chunk of rollouts was sampled and scored. The groups are not filtered yet.
    Rollouts(&'a [Group]),
    /// All rollouts of the step are drawn.
    Drawn(&'a RolloutMetrics, &'a DecodingTiming),
    /// TAPO made an update.
    TapoUpdate(&'a TapoMetrics, &'a UpdateTiming),
    /// The validation set was answered and scored. Each answer is a group of one.
    Validation(&'a [Group], &'a TapoValidation, &'a DecodingTiming),
    /// Something that the user should know, such as accuracies that part.
    Finding(&'a Finding),
}

/// Receives the events of a step. If it returns an error, the step stops and returns that error.
pub type OnEvent<'a> = dyn FnMut(TrainEvent<'_>) -> Result<(), TrainError> + 'a;
