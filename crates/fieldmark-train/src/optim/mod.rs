//! The optimiser: AdamW, clipping of gradients, and the learning rate.

mod adamw;
mod adamw_half;
mod grad_clip;
#[cfg(test)]
mod half_tests;
mod schedule;

pub(crate) use self::grad_clip::{Clipped, GradClipper};
pub use self::{
    adamw::AdamWSettings,
    adamw_half::{HalfWeights, Moments},
    grad_clip::grad_norm,
    schedule::{LrSchedule, LrShape},
};
