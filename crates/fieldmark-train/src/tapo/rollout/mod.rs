//! Rollouts: responses to the anchor and the positive image, their groups, and the filter that drops groups.
//!
//! `responder` samples and scores, `draw` draws the groups of a step into `buffer`, `filter` chooses the groups to train
//! on, `negative` makes negative images.

mod buffer;
mod draw;
mod filter;
mod gap;
mod group;
mod image_role;
mod negative;
mod over_step;
mod phase;
mod responder;
pub(super) mod widened;

#[cfg(test)]
pub(crate) use self::group::tests;
pub use self::{
    buffer::FilterCounts,
    filter::{GroupFate, GroupFilter, GroupVerdict, Surplus},
    gap::SamplerGap,
    group::{Group, Rollout, TripletPrompt},
    image_role::ImageRole,
    negative::{BlackPatches, NegativeImage},
};
pub(crate) use self::{
    buffer::GroupBuffer,
    group::{RolloutCounts, mean, mean_parts, rollout_groups, truncated},
};
pub(super) use self::{
    draw::{Drawer, Drawing},
    phase::Phase,
    responder::{Responder, Wanted},
};
