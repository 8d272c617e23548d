//! Triplet-augmented policy optimisation (paper 4.3). A step draws rollouts, keeps the groups that the filter accepts,
//! and makes a few updates with the loss in [`tapo_loss`].
//!
//! If the paper and its code differ, a setting of [`TapoConfig`] decides.

pub mod advantage;
mod check;
pub(crate) mod config;
mod diagnose;
mod items;
pub(crate) mod loss;
mod loss_config;
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
    diagnose::{Accuracies, AccuracyWatch, Diagnosis, Parted},
    loss::{PolicyTokens, TapoInputs, TapoLoss, TapoParts, tapo_loss},
    loss_config::{LossAverage, TapoLossConfig},
    metrics::{RolloutMetrics, TapoMetrics, TapoValidation},
    source::{SampleFacts, TripletSource},
    state::{OpenStep, SavedGroup, TapoState},
    trainer::TapoTrainer,
};
