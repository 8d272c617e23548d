//! Parts of the TAPO loss, per token: the clipped policy loss, importance ratios, the KL estimate, and the schedule of
//! the coefficients. `tapo/loss.rs` puts them together.

mod anneal;
mod importance;
mod k3;
mod policy_loss;
mod sampler_cap;

pub(crate) use self::sampler_cap::sampler_weights;
pub use self::{
    anneal::TermSchedule,
    importance::Importance,
    k3::k3,
    policy_loss::{ClipConfig, PolicyLoss, policy_loss},
    sampler_cap::SamplerCorrection,
};
