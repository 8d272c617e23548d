//! The optimiser: AdamW, gradient clipping and the learning-rate schedule.

mod adamw;
mod adamw_half;
mod grad_clip;
#[cfg(test)]
mod half_tests;
mod host_step;
mod idle;
mod schedule;

pub use self::{
    adamw::AdamWSettings,
    adamw_half::{HalfWeights, Moments},
    grad_clip::grad_norm,
    schedule::{LrSchedule, LrShape},
};
pub(crate) use self::{
    grad_clip::{Clipped, GradClipper},
    idle::{NOTHING, idle_parts},
};
