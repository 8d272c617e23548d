//! Rollouts: responses to the anchor and the positive image, their groups, and the filter that drops groups.
//!
//! `responder` samples and scores, `draw` collects the groups of a step, `filter` chooses the groups to train on,
//! `negative` makes negative images.

mod draw;
mod filter;
mod gap;
mod group;
mod image_role;
mod negative;
mod over_step;
mod responder;
pub(super) mod widened;

#[cfg(test)]
pub(crate) use self::group::tests;
pub(super) use self::{
    draw::Drawer,
    responder::{Responder, Wanted},
};
pub(crate) use self::{
    filter::GroupBuffer,
    group::{RolloutCounts, mean, mean_parts, rollout_groups, truncated},
};
pub use self::{
    filter::{FilterCounts, GroupFilter, GroupVerdict},
    gap::SamplerGap,
    group::{Group, Rollout, TripletPrompt},
    image_role::ImageRole,
    negative::{BlackPatches, NegativeImage},
};
