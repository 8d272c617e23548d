//! Supervised fine-tuning (SFT) and TAPO: losses, optimiser, loops, metrics. Each module is a room with one subject;
//! its items are used by its path, for example `fieldmark_train::tapo::policy::k3`.
//!
//! Letters at the end of a tensor's name are its axes: `logp_bt` is `[batch, sequence]`. b batch, t sequence (in
//! losses: of the response), r longest response, d width, n rows, v vocabulary, 1 an axis of length 1.

mod checkpoints;
mod error;
pub mod gradient;
mod interrupt;
mod manifest;
pub mod memory;
mod metrics;
mod non_finite;
mod numbers;
pub mod optim;
pub mod parallel;
pub mod params;
pub mod reward;
pub mod sft;
pub mod tapo;
mod tensorboard;
mod timings;
mod update;
mod workers;

pub use checkpoints::{Best, Checkpoints, Mark};
pub use error::TrainError;
pub use interrupt::Interrupt;
pub use manifest::{Fingerprint, weights_fingerprint};
pub use metrics::{LogEnd, MetricsWriter, RolloutMetrics, SftMetrics, TapoMetrics};
pub use numbers::numbers;
pub use tensorboard::TensorBoard;
pub use timings::{Decoding, DecodingTiming, UpdateTiming};
pub use update::{Updated, Updater, UpdaterState};
pub use workers::Replicas;

// transitional: the flat list that others still use
pub use gradient::{
    BatchSize, ChunkedLogProbs, GradientSum, HeadGradients, LossNorm, MicroBatch, Normaliser, ResponseRows, Scored,
    Scorer, TokenPacking, TokenScores, TrunkSettings, backward_states, token_logprobs,
};
pub use memory::{MemoryPart, MemoryPlan, MicroShape, Part, Phase, RolloutShape, Workload, peak_memory};
pub use optim::{AdamWSettings, HalfWeights, LrSchedule, LrShape, Moments, grad_norm};
pub use parallel::Reduction;
pub use params::{Trainable, initialise, initialise_adapters, stable_param_ids, trainable};
pub use reward::{
    Accuracy, EmbeddingSimilarity, Exact, Format, LengthPenalty, Reward, RewardInput, RewardRegistry, RewardScore,
    SEMANTIC, TextSimilarity, WeightedRewards,
};
pub use sft::{
    SftConfig, SftGradients, SftSource, SftState, SftTrainer, Validation, sft_gradients, train_sft, validate_sft,
};
pub use tapo::{
    LossAverage, OpenStep, SavedGroup, TapoConfig, TapoEvent, TapoInputs, TapoLoss, TapoLossConfig, TapoParts,
    TapoState, TapoTrainer, TapoValidation, TripletSource, UpdateImage, tapo_loss,
};
pub use tapo::{
    advantage::{Estimator, group_advantages},
    policy::{ClipConfig, Importance, PolicyLoss, SamplerCorrection, TermSchedule, k3, policy_loss},
    rollout::{
        BlackPatches, FilterCounts, Group, GroupFilter, GroupVerdict, ImageRole, NegativeImage, Role, Rollout,
        RolloutGroup, SamplerGap, TripletPrompt,
    },
};

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
