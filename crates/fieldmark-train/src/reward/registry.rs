//! The registry of rewards that `[tapo.rewards]` in a recipe chooses from, and their weighted sum.

use std::{collections::BTreeMap, sync::Arc};

use fieldmark_processor::TextEmbedder;
use serde::{Deserialize, Serialize};

use super::{
    exact::{Accuracy, AnswerOnly, Exact},
    input::{Reward, RewardInput},
    length::LengthPenalty,
    rules::{Format, Inclusion},
    similarity::{EmbeddingSimilarity, SEMANTIC, TextSimilarity},
};
use crate::{TrainError, tapo::config::TapoConfig};

/// Reward of a response, and its parts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RewardScore {
    /// Weighted sum of the parts. Advantages are computed from it.
    pub overall: f64,
    /// The reward that the group filter uses ([`GroupFilter::key`](crate::tapo::rollout::GroupFilter::key)), unweighted.
    pub accuracy: f64,
    /// Each reward by name, unweighted.
    pub parts: BTreeMap<String, f64>,
}

/// The rewards that a recipe can use by name.
///
/// ```
/// use fieldmark_train::{reward::{RewardInput, RewardRegistry}, tapo::TapoConfig};
/// let mut config = TapoConfig::default();
/// let registry = RewardRegistry::standard(&config)
///     .with("short", |input: &RewardInput<'_>| f64::from(u8::from(input.response_tokens < 200)));
/// config.rewards.insert("short".into(), 0.2);
/// let rewards = registry.choose(&config)?;
/// let input = RewardInput::new("<think>a</think><answer>Lime</answer>", "lime").with_tokens(12, 2048);
/// let score = rewards.parts(&input);
/// assert_eq!((score.accuracy, score.parts["short"]), (1.0, 1.0));
/// assert!((score.overall - (0.9 + 0.1 + 0.2)).abs() < 1e-12);
/// # Ok::<(), fieldmark_train::TrainError>(())
/// ```
#[derive(Clone, Default)]
pub struct RewardRegistry {
    rewards: BTreeMap<String, Arc<dyn Reward>>,
}

impl RewardRegistry {
    /// Makes a registry with `accuracy` ([`Accuracy`], with a think block or without as `think` says), `inclusion` and
    /// `format` as in the released code ([`Inclusion`], [`Format`]), `answer_only` ([`AnswerOnly`]), `exact` ([`Exact`]),
    /// `text_similarity` ([`TextSimilarity`]), and `length_penalty` ([`LengthPenalty`] over the last `length_cache`
    /// tokens). To add `semantic`, which needs a text encoder, call [`Self::with_semantic`].
    pub fn standard(config: &TapoConfig) -> Self {
        Self::default()
            .with("accuracy", Accuracy { think: config.think })
            .with("inclusion", Inclusion)
            .with("format", Format)
            .with("answer_only", AnswerOnly)
            .with("exact", Exact)
            .with("text_similarity", TextSimilarity)
            .with("length_penalty", LengthPenalty { cache: config.length_cache })
    }

    /// Adds `semantic`, an [`EmbeddingSimilarity`] that uses `embedder`.
    #[must_use]
    pub fn with_semantic(self, embedder: impl TextEmbedder + 'static) -> Self {
        self.with(SEMANTIC, EmbeddingSimilarity::new(embedder))
    }

    /// Adds a reward. It replaces a reward of the same name.
    #[must_use]
    pub fn with(mut self, name: &str, reward: impl Reward + 'static) -> Self {
        self.rewards.insert(name.into(), Arc::new(reward));
        self
    }

    /// Names of the registered rewards, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rewards.keys().map(String::as_str)
    }

    /// Makes the weighted sum that `config.rewards` describes.
    ///
    /// # Errors
    /// Returns an error if a name is not registered, a weight is negative or not finite, or the reward of the group filter
    /// ([`GroupFilter::key`](crate::tapo::rollout::GroupFilter::key)) is not among the names in `config.rewards`.
    pub fn choose(&self, config: &TapoConfig) -> Result<WeightedRewards, TrainError> {
        let mut parts = Vec::with_capacity(config.rewards.len());
        for (name, &weight) in &config.rewards {
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(TrainError::RewardWeight { name: name.clone(), weight });
            }
            let reward = self.rewards.get(name).ok_or_else(|| TrainError::UnknownReward {
                name: name.clone(),
                known: self.names().collect::<Vec<_>>().join(", "),
            })?;
            parts.push((name.clone(), weight, reward.clone()));
        }
        let key = &config.filter.key(&config.rewards);
        match parts.iter().position(|(name, ..)| name == key) {
            Some(key) => Ok(WeightedRewards { parts, key }),
            None => Err(TrainError::FilterKey {
                key: key.clone(),
                names: parts.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", "),
            }),
        }
    }
}

impl std::fmt::Debug for RewardRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// A weighted sum of named rewards. A weight of 0 only measures the reward.
#[derive(Clone)]
pub struct WeightedRewards {
    parts: Vec<(String, f64, Arc<dyn Reward>)>,
    key: usize,
}

impl std::fmt::Debug for WeightedRewards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.parts.iter().map(|(name, weight, _)| (name, weight))).finish()
    }
}

impl WeightedRewards {
    /// Computes all parts and their weighted sum.
    pub fn parts(&self, input: &RewardInput<'_>) -> RewardScore {
        let scores: Vec<f64> = self.parts.iter().map(|(_, _, reward)| reward.score(input)).collect();
        let overall = self.parts.iter().zip(&scores).map(|((_, weight, _), score)| weight * score).sum();
        let names = self.parts.iter().map(|(name, ..)| name.clone());
        RewardScore { overall, accuracy: scores[self.key], parts: names.zip(scores.iter().copied()).collect() }
    }

    /// Weight and values of each reward, in the order of `scores`.
    pub(crate) fn each<'a>(&self, scores: impl Iterator<Item = &'a RewardScore> + Clone) -> Vec<(f64, Vec<f64>)> {
        let of = |name: &str| scores.clone().map(|score| score.parts.get(name).copied().unwrap_or(0.0)).collect();
        self.parts.iter().map(|(name, weight, _)| (*weight, of(name))).collect()
    }
}

impl Reward for WeightedRewards {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        self.parts(input).overall
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::rollout::GroupFilter;

    const RIGHT: &str = "<think>a</think><answer>Border Collie</answer>";

    fn config(weights: &[(&str, f64)], key: &str) -> TapoConfig {
        TapoConfig {
            rewards: weights.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect(),
            filter: GroupFilter { key: Some(key.into()), ..GroupFilter::default() },
            ..TapoConfig::default()
        }
    }

    fn choose(weights: &[(&str, f64)], key: &str) -> Result<WeightedRewards, TrainError> {
        let config = config(weights, key);
        RewardRegistry::standard(&config).choose(&config)
    }

    #[test]
    fn the_sum_has_the_weights_and_the_parts_have_not() {
        let weights =
            [("inclusion", 0.0), ("exact", 0.7), ("format", 0.1), ("text_similarity", 0.2), ("length_penalty", 0.5)];
        let rewards = choose(&weights, "inclusion").unwrap();
        // "collie" is contained, but not all; 6 of 13 characters stay; 1843 of 2048 tokens are half of 410 over.
        let score = rewards.parts(&RewardInput::new(RIGHT, "Collie").with_tokens(1843, 2048));
        let expected = [
            ("exact", 0.0),
            ("format", 1.0),
            ("inclusion", 1.0),
            ("length_penalty", -0.5),
            ("text_similarity", 6.0 / 13.0),
        ];
        assert_eq!(score.parts, expected.map(|(name, value)| (name.to_owned(), value)).into());
        assert_eq!(score.accuracy, 1.0);
        assert!((score.overall - (0.1 + 0.2 * 6.0 / 13.0 - 0.5 * 0.5)).abs() < 1e-12);
        assert_eq!(rewards.score(&RewardInput::new(RIGHT, "Border_collie")), 0.7 + 0.1 + 0.2);
        let scores = [
            &score,
            &RewardScore { parts: score.parts.iter().map(|(k, v)| (k.clone(), v + 1.0)).collect(), ..score.clone() },
        ];
        let each = rewards.each(scores.into_iter());
        assert_eq!(each[..2], [(0.7, vec![0.0, 1.0]), (0.1, vec![1.0, 2.0])]);
        assert_eq!(each.len(), 5);
        // The filter can look at another.
        let strict = choose(&weights, "exact").unwrap().parts(&RewardInput::new(RIGHT, "Collie"));
        assert_eq!(strict.accuracy, 0.0);
    }

    #[test]
    fn rewards_of_ones_own_come_with_the_registry() {
        let config = config(&[("accuracy", 1.0), ("tokens", 0.01), ("row", 0.5)], "row");
        let standard = || RewardRegistry::standard(&config);
        let error = standard().choose(&config).unwrap_err().to_string();
        assert!(error.contains("`tapo.rewards.row`") && error.contains("text_similarity"), "{error}");
        let registry = standard()
            .with("tokens", |input: &RewardInput<'_>| input.response_tokens as f64)
            .with("row", |input: &RewardInput<'_>| f64::from(u8::from(input.sample == "file:3")))
            .with("accuracy", |_: &RewardInput<'_>| 0.25);
        let rewards = registry.choose(&config).unwrap();
        let input = RewardInput::new(RIGHT, "Collie").with_tokens(7, 9).with_sample("file:3");
        assert_eq!(rewards.parts(&input).overall, 0.25 + 0.01 * 7.0 + 0.5);
        assert_eq!(rewards.parts(&input).accuracy, 1.0);
    }

    #[test]
    fn what_cannot_be_summed_is_refused_by_its_name() {
        for weight in [-0.1, f64::NAN, f64::INFINITY] {
            let error = choose(&[("accuracy", 0.9), ("format", weight)], "accuracy").unwrap_err().to_string();
            assert!(error.contains("`tapo.rewards.format`"), "{error}");
        }
        let error = choose(&[("exact", 0.9), ("format", 0.1)], "accuracy").unwrap_err().to_string();
        assert!(error.contains("`tapo.filter.key`") && error.contains("exact, format"), "{error}");
    }

    #[derive(serde::Deserialize)]
    struct Case {
        response: String,
        ground_truth: String,
        accuracy: f64,
        format: f64,
        overall: f64,
    }

    #[test]
    fn every_reference_case_has_its_reward() {
        let text = include_str!("../../../../tests/fixtures/tapo/rewards.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert_eq!(cases.len(), 24);
        let rewards = [("inclusion".into(), 0.9), ("format".into(), 0.1)].into();
        let config = TapoConfig { rewards, ..TapoConfig::default() };
        let rewards = RewardRegistry::standard(&config).choose(&config).unwrap();
        for case in cases {
            let score = rewards.parts(&RewardInput::new(&case.response, &case.ground_truth));
            let found = [score.parts["inclusion"], score.parts["format"], score.accuracy, score.overall];
            let expected = [case.accuracy, case.format, case.accuracy, case.overall];
            assert_eq!(found, expected, "{:?} / {:?}", case.response, case.ground_truth);
            assert_eq!(score.parts.len(), 2);
        }
    }

    /// How often a text has an a and a b.
    struct Letters;

    impl TextEmbedder for Letters {
        fn embed(&self, text: &str) -> Vec<f32> {
            ["a", "b"].map(|letter| text.matches(letter).count() as f32).into()
        }
    }

    #[test]
    fn an_embedder_is_the_semantic_reward() {
        let rewards = [("inclusion".into(), 0.9), ("semantic".into(), 0.5)].into();
        let config = TapoConfig { rewards, ..TapoConfig::default() };
        let rewards = RewardRegistry::standard(&config).with_semantic(Letters).choose(&config).unwrap();
        let score = rewards.parts(&RewardInput::new("<answer>aaabbbb</answer>", "a"));
        assert!((score.parts["semantic"] - 0.6).abs() < 1e-12 && (score.overall - (0.9 + 0.3)).abs() < 1e-12);
    }
}
