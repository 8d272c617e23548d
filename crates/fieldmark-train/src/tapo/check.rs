//! What [`TapoConfig`] refuses: settings out of range, and settings that contradict each other.

use super::config::TapoConfig;
use crate::{TrainError, gradient::ChunkedLogProbs, optim::GradClipper, params::check_learns};

impl TapoConfig {
    /// Checks that some group can pass the filter, for a `filter.key` whose values are known: `accuracy`, `inclusion`,
    /// `exact`, `format` and `answer_only` are 0 or 1, and the similarities are between. Only recipes need it: a program
    /// may register a reward of its own under these names.
    ///
    /// # Errors
    /// Returns an error if no mean over a group lies between `filter.low` and `filter.high`.
    pub fn check_band(&self) -> Result<(), TrainError> {
        let (filter, group) = (&self.filter, self.group());
        let keeps = match filter.key(&self.rewards).as_str() {
            "accuracy" | "inclusion" | "exact" | "format" | "answer_only" => filter.keeps_some(group),
            "text_similarity" | "semantic" => !filter.enabled || filter.low < 1.0 && filter.high > 0.0,
            _ => true,
        };
        if keeps {
            return Ok(());
        }
        let value = format!("{} with tapo.filter.high = {} and groups of {group}", filter.low, filter.high);
        let expected = "so far below tapo.filter.high that some share of right responses lies between them; or set \
                        tapo.filter.enabled = false";
        Err(TrainError::Setting { key: "filter.low", value, expected })
    }

    /// Checks that no reward pays for a form of response that another refuses. Only recipes need it: a program may
    /// register a reward of its own under these names.
    ///
    /// # Errors
    /// Returns an error if `format` is paid for without `think`, or `answer_only` beside an `accuracy` that asks for a
    /// think block.
    pub fn check_form(&self) -> Result<(), TrainError> {
        let weight = |name: &str| self.rewards.get(name).copied().unwrap_or(0.0);
        let (key, expected) = match self.think {
            false if weight("format") > 0.0 => {
                ("rewards.format", "0 with tapo.think = false, because it pays for a think block; use answer_only")
            }
            true if weight("answer_only") > 0.0 && weight("accuracy") > 0.0 => (
                "rewards.answer_only",
                "0, or tapo.think must be false: it pays for a response without a think block, and accuracy only for one \
                 with it",
            ),
            _ => return Ok(()),
        };
        let value = weight(key.trim_start_matches("rewards.")).to_string();
        Err(TrainError::Setting { key, value, expected })
    }

    /// Checks every setting, so that a run fails before it has written anything.
    ///
    /// # Errors
    /// Returns an error for the first setting that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        let counts = [
            ("epochs", self.epochs),
            ("chunk", self.chunk),
            ("anchor_rollouts + positive_rollouts", self.group()),
            ("max_new_tokens", self.max_new_tokens),
            ("generation_batch", self.generation_batch),
            ("batch", self.batch),
            ("micro_batch", self.micro_batch),
            ("length_cache", self.length_cache),
        ];
        for (key, value) in counts {
            if value == 0 {
                return Err(TrainError::Setting { key, value: "0".into(), expected: "at least 1" });
            }
        }
        if self.estimator.compares_within_group() && self.group() < 2 {
            let (key, value) = (
                "anchor_rollouts",
                format!("{}, tapo.positive_rollouts = {}", self.anchor_rollouts, self.positive_rollouts),
            );
            let expected = "at least 2 together: the estimator compares the responses of a group, and the advantage of \
                            a single response is always 0";
            return Err(TrainError::Setting { key, value, expected });
        }
        if self.rewards.values().all(|&weight| weight == 0.0) {
            let value = if self.rewards.is_empty() { "none" } else { "weights of 0 alone" };
            let expected = "a table with at least one weight above 0; otherwise every response has the same reward";
            return Err(TrainError::Setting { key: "rewards", value: value.into(), expected });
        }
        check_learns(self.train)?;
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            let expected = "above 0 and at most 1";
            return Err(TrainError::Setting { key: "top_p", value: self.top_p.to_string(), expected });
        }
        if self.rewards.contains_key("length_penalty") && self.length_cache > self.max_new_tokens {
            let (value, expected) = (self.length_cache.to_string(), "at most tapo.max_new_tokens");
            return Err(TrainError::Setting { key: "length_cache", value, expected });
        }
        ChunkedLogProbs::new(self.logit_chunk, self.temperature)?;
        self.filter.validate(self.prompts_per_step, self.max_tries)?;
        self.patches.validate()?;
        self.adamw.validate()?;
        GradClipper::new(self.max_grad_norm)?;
        self.schedule.validate()?;
        self.loss.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        optim::{AdamWSettings, LrSchedule},
        tapo::{
            TapoLossConfig,
            advantage::Estimator,
            rollout::{BlackPatches, GroupFilter},
        },
    };
    use fieldmark_model::TrainableParts;

    fn key(config: TapoConfig) -> String {
        match config.validate().unwrap_err() {
            TrainError::Setting { key, .. } => key.into(),
            other => other.to_string(),
        }
    }

    #[test]
    fn every_setting_without_meaning_is_refused_under_its_key() {
        let config = TapoConfig::default;
        assert!(config().validate().is_ok());
        let none = |key: &str| {
            let value = serde_json::json!({ key: 0 });
            serde_json::from_value::<TapoConfig>(value).unwrap()
        };
        for count in [
            "epochs",
            "prompts_per_step",
            "chunk",
            "max_tries",
            "max_new_tokens",
            "generation_batch",
            "batch",
            "micro_batch",
            "length_cache",
            "max_grad_norm",
            "logit_chunk",
            "temperature",
            "top_p",
        ] {
            assert_eq!(key(none(count)), count);
        }
        assert!(key(TapoConfig { anchor_rollouts: 0, positive_rollouts: 0, ..config() }).contains("anchor_rollouts"));
        let group = |estimator, anchor_rollouts, positive_rollouts| {
            TapoConfig { estimator, anchor_rollouts, positive_rollouts, ..config() }.validate()
        };
        for estimator in [Estimator::Grpo, Estimator::Rloo, Estimator::DrGrpo, Estimator::Mrn, Estimator::Gdpo] {
            for (anchor, positive) in [(1, 0), (0, 1)] {
                let refused = group(estimator, anchor, positive);
                assert!(matches!(refused, Err(TrainError::Setting { key: "anchor_rollouts", .. })), "{estimator:?}");
            }
            assert!(group(estimator, 1, 1).is_ok() && group(estimator, 2, 0).is_ok());
        }
        assert!(group(Estimator::Remax, 1, 0).is_ok() && group(Estimator::ReinforcePlusPlus, 1, 0).is_ok());
        for rewards in [&[][..], &[("accuracy", 0.0)], &[("accuracy", 0.0), ("format", 0.0)]] {
            let rewards = rewards.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect();
            assert_eq!(key(TapoConfig { rewards, ..config() }), "rewards");
        }
        let train = TrainableParts { vision: false, projector: false, decoder: false };
        assert_eq!(key(TapoConfig { train, ..config() }), "train");
        let band = GroupFilter { low: 0.6, high: 0.9, ..GroupFilter::default() };
        let narrow = TapoConfig { anchor_rollouts: 1, positive_rollouts: 1, filter: band, ..config() };
        assert!(matches!(narrow.check_band(), Err(TrainError::Setting { key: "filter.low", .. })));
        assert!(config().check_band().is_ok());
        let partial = GroupFilter { key: Some("text_similarity".into()), ..narrow.filter.clone() };
        assert!(TapoConfig { filter: partial, ..narrow.clone() }.check_band().is_ok());
        for value in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(key(TapoConfig { temperature: value, ..config() }), "temperature");
            assert_eq!(key(TapoConfig { top_p: value, ..config() }), "top_p");
        }
        assert_eq!(key(TapoConfig { top_p: 1.01, ..config() }), "top_p");
        assert!(TapoConfig { top_p: 1.0, ..config() }.validate().is_ok());
        for (low, high) in [(0.5, 0.5), (0.9, 0.1), (f64::NAN, 0.9), (0.1, f64::NAN)] {
            assert_eq!(
                key(TapoConfig { filter: GroupFilter { low, high, ..config().filter }, ..config() }),
                "filter.low"
            );
        }
        let penalised = |length_cache| TapoConfig {
            rewards: [("accuracy".into(), 1.0), ("length_penalty".into(), 0.5)].into(),
            length_cache,
            ..config()
        };
        assert!(penalised(2048).validate().is_ok());
        assert_eq!(key(penalised(2049)), "length_cache");
        let patches = BlackPatches { probability: 2.0, ..BlackPatches::default() };
        assert_eq!(key(TapoConfig { patches, ..config() }), "patches.probability");
        assert_eq!(key(TapoConfig { adamw: AdamWSettings { beta2: 1.0, ..config().adamw }, ..config() }), "beta2");
        assert_eq!(key(TapoConfig { schedule: LrSchedule { lr: -1.0, ..config().schedule }, ..config() }), "lr");
        assert_eq!(key(TapoConfig { loss: TapoLossConfig { gamma: f64::NAN, ..config().loss }, ..config() }), "gamma");
        for cap in [0.0, 0.99, -1.0, f64::NAN] {
            let loss = TapoLossConfig { sampler_cap: Some(cap), ..config().loss };
            assert_eq!(key(TapoConfig { loss, ..config() }), "sampler_cap");
        }
        for cap in [1.0, 2.0, f64::INFINITY] {
            let loss = TapoLossConfig { sampler_cap: Some(cap), ..config().loss };
            assert!(TapoConfig { loss, ..config() }.validate().is_ok());
        }
    }

    #[test]
    fn no_reward_pays_for_a_form_that_another_refuses() {
        let refused = |think, rewards: &[(&str, f64)]| {
            let rewards = rewards.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect();
            match (TapoConfig { think, rewards, ..TapoConfig::default() }).check_form() {
                Ok(()) => None,
                Err(TrainError::Setting { key, .. }) => Some(key),
                Err(other) => panic!("{other}"),
            }
        };
        for (think, rewards, key) in [
            (true, &[("accuracy", 0.9), ("format", 0.1)][..], None),
            (true, &[("accuracy", 0.9), ("answer_only", 0.0)], None),
            (true, &[("exact", 0.9), ("answer_only", 0.1)], None),
            (true, &[("accuracy", 0.9), ("answer_only", 0.1)], Some("rewards.answer_only")),
            (false, &[("accuracy", 0.9), ("answer_only", 0.1), ("format", 0.0)], None),
            (false, &[("accuracy", 0.9), ("format", 0.1)], Some("rewards.format")),
        ] {
            assert_eq!(refused(think, rewards), key, "{think} {rewards:?}");
        }
    }
}
