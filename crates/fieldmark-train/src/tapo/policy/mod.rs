//! The per-token terms of the TAPO loss: the clipped policy loss, the divergence from another policy, and their weights.

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
