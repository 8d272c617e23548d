//! Rewards: named scores of a response. `[tapo.rewards]` in a recipe gives each a weight.
//!
//! To add a reward, implement [`Reward`] (or pass a closure) and register it with [`RewardRegistry::with`].

mod exact;
mod input;
mod length;
mod registry;
mod rules;
mod similarity;

pub use self::{
    exact::{Accuracy, AnswerOnly, Exact},
    input::{Reward, RewardInput},
    length::LengthPenalty,
    registry::{RewardRegistry, RewardScore, WeightedRewards},
    rules::{Format, Inclusion},
    similarity::{EmbeddingSimilarity, SEMANTIC, TextSimilarity},
};
