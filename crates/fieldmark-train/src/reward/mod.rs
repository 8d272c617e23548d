//! Rewards: what a response is worth, as numbers with names. A recipe's `[tapo.rewards]` gives each a weight; a project of
//! its own adds rewards of its own to the [`RewardRegistry`].

mod exact;
mod input;
mod length;
mod registry;
mod rules;
mod similarity;

pub use self::{
    exact::Exact,
    input::{Reward, RewardInput},
    length::LengthPenalty,
    registry::{RewardRegistry, RewardScore, WeightedRewards},
    rules::{Accuracy, Format},
    similarity::{EmbeddingSimilarity, SEMANTIC, TextSimilarity},
};
