//! What a trainer reports while it makes a step.

use super::{DecodingTiming, UpdateTiming};
use crate::{
    TrainError,
    sft::SftMetrics,
    tapo::{RolloutMetrics, TapoMetrics, TapoValidation, rollout::Group},
};

/// Something that happened in a step. SFT reports [`Self::SftUpdate`] alone, TAPO all others.
#[derive(Debug, Clone, Copy)]
pub enum TrainEvent<'a> {
    /// SFT made an update.
    SftUpdate(&'a SftMetrics, &'a UpdateTiming),
    /// A chunk of rollouts was sampled and scored; the filter has not seen the groups yet.
    Rollouts(&'a [Group]),
    /// All rollouts of the step are drawn.
    Drawn(&'a RolloutMetrics, &'a DecodingTiming),
    /// TAPO made an update.
    TapoUpdate(&'a TapoMetrics, &'a UpdateTiming),
    /// The validation set was answered and scored. Each answer is a group of one.
    Validation(&'a [Group], &'a TapoValidation, &'a DecodingTiming),
}

/// Receives the events of a step. An error stops the step and is returned from it.
pub type OnEvent<'a> = dyn FnMut(TrainEvent<'_>) -> Result<(), TrainError> + 'a;
