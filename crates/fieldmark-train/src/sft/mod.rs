//! Supervised fine-tuning: mean of −log π(token) over the assistant's tokens of the whole accumulated batch.
//!
//! Reference: LLaMA-Factory's SFT as the paper used it, with two differences that `released` settings undo: one token mean
//! over all micro-batches ([`crate::LossNorm::Batch`]), and a warm-up that starts above 0 ([`crate::LrSchedule`]).

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
    state::SftState,
    trainer::{SftTrainer, train_sft},
    validation::{Validation, validate_sft},
};
