//! Rollouts: the responses to a triplet's images, their groups, and which groups are trained on.

mod filter;
mod gap;
mod group;
mod image_role;
mod negative;

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
