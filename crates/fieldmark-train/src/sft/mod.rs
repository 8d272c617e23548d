//! Supervised fine-tuning: the loss is the mean of −log π(token) over the assistant's tokens of the accumulated batch.
//!
//! Reference: LLaMA-Factory's SFT, which the paper used. Two differences: one token mean over all micro-batches
//! (`loss_norm = "micro"` selects LLaMA-Factory's way), and a warm-up that starts above 0 (unless `schedule.released`).

mod config;
mod gradients;
mod loss;
mod metrics;
mod source;
mod state;
mod trainer;
mod validation;

pub use self::{
    config::SftConfig,
    gradients::{SftGradients, sft_gradients},
    loss::{cross_entropy_sum, sft_loss, sft_loss_grad},
    metrics::SftMetrics,
    source::SftSource,
    state::{SftState, Unscored},
    trainer::{SftTrainer, train_sft},
    validation::{Validation, validate_sft},
};
