//! From rewards to advantages, one number for all tokens of a response.

mod dr_grpo;
mod estimator;
mod grpo;
mod over_step;
mod reinforce;
mod remax;
mod rewards;
mod rloo;

pub use self::{estimator::Estimator, grpo::group_advantages};
