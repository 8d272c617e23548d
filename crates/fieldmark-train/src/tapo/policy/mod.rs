//! Parts of the TAPO loss, per token: the policy loss (clipped, SAPO's or CISPO's), importance ratios, the KL estimate, and
//! the schedule of the coefficients. `tapo/loss.rs` puts them together.

mod anneal;
mod cispo;
mod importance;
mod k3;
mod objective;
mod policy_loss;
mod sampler_cap;
mod sapo;
mod visual;

pub(crate) use self::sampler_cap::sampler_weights;
pub use self::{
    anneal::TermSchedule,
    cispo::{CISPO_MAX, cispo_loss},
    importance::Importance,
    k3::k3,
    objective::PolicyObjective,
    policy_loss::{ClipConfig, PolicyLoss, policy_loss},
    sampler_cap::SamplerCorrection,
    sapo::{SapoConfig, sapo_loss},
    visual::VisualTokens,
};
