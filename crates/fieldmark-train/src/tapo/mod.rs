//! Triplet-augmented policy optimisation (paper 4.3): one step draws rollouts, keeps the groups worth learning from, and
//! makes a few updates of the loss in [`tapo_loss`].
//!
//! Where the paper and its code differ, [`TapoConfig`] decides.

pub mod advantage;
pub(crate) mod config;
mod items;
pub(crate) mod loss;
mod metrics;
pub mod policy;
pub mod rollout;
mod source;
mod state;
mod trainer;
mod update;
mod validation;

pub use self::{
    config::{TapoConfig, UpdateImage},
    loss::{LossAverage, TapoInputs, TapoLoss, TapoLossConfig, TapoParts, tapo_loss},
    metrics::{RolloutMetrics, TapoMetrics},
    source::{SampleFacts, TripletSource},
    state::{OpenStep, SavedGroup, TapoState},
    trainer::TapoTrainer,
    validation::TapoValidation,
};
