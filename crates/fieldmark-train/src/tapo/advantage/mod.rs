//! From rewards to advantages: one number for all tokens of a response. Each estimator has a file.
//!
//! To add one: write its file, add a variant to [`Estimator`] and a line to `Estimator::within_group`.

mod dr_grpo;
mod each;
mod estimator;
mod grpo;
mod reinforce;
mod remax;
mod rewards;
mod rloo;

pub(super) use self::{each::gdpo_over_step, reinforce::whitened_advantages};
pub use self::{estimator::Estimator, grpo::group_advantages, rewards::GroupRewards};
