//! Supervised fine-tuning and TAPO: losses, optimiser, loops, metrics.
//! Letters at the end of a tensor's name are its axes: B batch, T sequence, D width, N rows.

#![allow(non_snake_case)]

mod adamw;
mod adamw_half;
mod adapters;
mod advantage;
mod anneal;
mod checkpoints;
mod clip;
mod error;
mod estimator;
mod gradients;
mod group_filter;
mod importance;
mod initialise;
mod interrupt;
mod kl;
mod logprob;
mod loss_norm;
mod manifest;
mod memory;
mod metrics;
mod micro_batches;
mod negative;
mod non_finite;
mod numbers;
mod packing;
mod param_ids;
mod pass_flops;
mod passes;
mod peak_memory;
mod policy_loss;
mod reduction;
mod reward;
mod rollout;
mod sampler_cap;
mod sampler_gap;
mod schedule;
mod scoring;
mod sft;
mod tapo;
mod tensorboard;
mod timings;
mod trunk;
mod update;
mod workers;

pub use adamw::AdamWSettings;
pub use adamw_half::{HalfWeights, Moments};
pub use adapters::{Trainable, initialise_adapters, trainable};
pub use advantage::group_advantages;
pub use anneal::TermSchedule;
pub use checkpoints::{Best, Checkpoints, Mark};
pub use clip::{Clipped, GradClipper, grad_norm};
pub use error::TrainError;
pub use estimator::{Estimator, centred_advantages, remax_advantages, rloo_advantages, whitened_advantages};
pub use gradients::GradientSum;
pub use group_filter::{FilterCounts, GroupBuffer, GroupFilter, GroupVerdict, RolloutGroup};
pub use importance::Importance;
pub use initialise::initialise;
pub use interrupt::Interrupt;
pub use kl::k3;
pub use logprob::{ChunkedLogProbs, HeadGradients, TokenScores, backward_states, token_logprobs};
pub use loss_norm::{BatchSize, LossNorm, Normaliser};
pub use manifest::{Fingerprint, weights_fingerprint};
pub use memory::{MemoryPlan, MicroShape, Part, Phase, RolloutShape, Workload};
pub use metrics::{LogEnd, MetricsWriter, RolloutMetrics, SftMetrics, TapoMetrics};
pub use micro_batches::micro_batches;
pub use negative::{BlackPatches, NegativeImage};
pub use numbers::numbers;
pub use packing::{ResponseRows, TokenPacking};
pub use param_ids::stable_param_ids;
pub use pass_flops::pass_flops;
pub use passes::Passes;
pub use peak_memory::peak_memory;
pub use policy_loss::{ClipConfig, PolicyLoss, policy_loss};
pub use reduction::Reduction;
pub use reward::{
    Accuracy, EmbeddingSimilarity, Exact, Format, LengthPenalty, Reward, RewardInput, RewardRegistry, RewardScore,
    SEMANTIC, TextSimilarity, WeightedRewards,
};
pub use rollout::{Group, Role, Rollout, RolloutCounts, TripletPrompt, rollout_groups};
pub use sampler_cap::{SamplerCorrection, SamplerWeights, sampler_weights};
pub use sampler_gap::SamplerGap;
pub use schedule::{LrSchedule, LrShape};
pub use scoring::{MicroBatch, Scored, Scorer};
pub use sft::{
    SftConfig, SftGradients, SftSource, SftState, SftTrainer, Validation, cross_entropy_sum, sft_gradients, sft_loss,
    sft_loss_grad, train_sft, validate_sft,
};
pub use tapo::{
    LossAverage, OpenStep, SavedGroup, TapoConfig, TapoEvent, TapoInputs, TapoLoss, TapoLossConfig, TapoParts,
    TapoState, TapoTrainer, TapoValidation, TripletSource, UpdateImage, tapo_loss,
};
pub use tensorboard::TensorBoard;
pub use timings::{Decoding, DecodingTiming, UpdateTiming};
pub use trunk::{TrunkSettings, TrunkTape};
pub use update::{MOST_SKIPPED_IN_A_ROW, Updated, Updater, UpdaterState};
pub use workers::Replicas;
