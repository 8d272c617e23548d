//! Rollouts: responses to the anchor and the positive image, their groups, and the filter that drops groups.
//!
//! `group` samples and scores, `filter` chooses the groups to train on, `negative` makes negative images.

mod filter;
mod gap;
mod group;
mod image_role;
mod negative;
mod over_step;

pub use self::image_role::ImageRole as Role; // transitional
pub(crate) use self::{
    filter::GroupBuffer,
    group::{RolloutCounts, mean, mean_parts, rollout_groups, truncated},
};
pub use self::{
    filter::{FilterCounts, GroupFilter, GroupVerdict, RolloutGroup},
    gap::SamplerGap,
    group::{Group, Rollout, TripletPrompt},
    image_role::ImageRole,
    negative::{BlackPatches, NegativeImage},
};
