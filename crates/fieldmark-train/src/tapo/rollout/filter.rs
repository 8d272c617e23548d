//! Dynamic sampling: keep the groups with 0.01 < mean accuracy < 0.99, and draw more prompts until the rollout batch is
//! full or no tries are left; then train on the groups there are (`buffer`).

use std::{cmp::Ordering, collections::BTreeMap};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Group filter (dynamic sampling). A group is trained on if its mean accuracy is above `low` and below `high`, for
/// example 3 right answers of 10. If all answers of a group are right, or all are wrong, its GRPO advantages are almost
/// or exactly 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GroupFilter {
    /// Whether to filter. `false` keeps every group, as in GRPO.
    pub enabled: bool,
    /// Name of the reward whose unweighted mean is the group's accuracy. It must be listed in `rewards`; a weight of 0
    /// is enough. Unset: `accuracy` if its weight is above 0, otherwise `inclusion` if its weight is, otherwise
    /// whichever of the two is listed.
    pub key: Option<String>,
    /// Groups are kept if their mean accuracy is above this. Released `filter_low`: 0.01.
    pub low: f64,
    /// Groups are kept if their mean accuracy is below this. Released `filter_high`: 0.99.
    pub high: f64,
}

impl Default for GroupFilter {
    fn default() -> Self {
        Self { enabled: true, key: None, low: 0.01, high: 0.99 }
    }
}

/// What happens to groups that passed the filter and that the step does not need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Surplus {
    /// The next step trains on them, as far as it needs them; the others are dropped.
    #[default]
    Next,
    /// They are dropped (released code).
    Drop,
}

/// The filter's decision about one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupVerdict {
    /// Mean accuracy between `low` and `high`: some rollouts are right and some are wrong.
    Keep,
    /// Mean accuracy at or below `low`.
    AllWrong,
    /// Mean accuracy at or above `high`.
    AllRight,
}

impl GroupFilter {
    /// Returns the name of the reward that the filter looks at. `rewards` are the weights of the recipe.
    ///
    /// ```
    /// use fieldmark_train::tapo::rollout::GroupFilter;
    /// let released = [("accuracy".into(), 0.0), ("inclusion".into(), 0.9)].into();
    /// assert_eq!(GroupFilter::default().key(&released), "inclusion");
    /// ```
    pub fn key(&self, rewards: &BTreeMap<String, f64>) -> String {
        let named = self.key.clone().filter(|key| !key.is_empty());
        let weight = |name: &str| rewards.get(name).copied();
        let paid =
            || ["accuracy", "inclusion"].into_iter().find(|name| weight(name).is_some_and(|weight| weight > 0.0));
        let listed = || ["accuracy", "inclusion"].into_iter().find(|name| weight(name).is_some());
        named.unwrap_or_else(|| paid().or_else(listed).unwrap_or("accuracy").into())
    }

    /// Checks `low` and `high`, the number of groups of a step and the number of tries.
    pub(crate) fn validate(&self, target: usize, max_tries: usize) -> Result<(), TrainError> {
        for (key, value) in [("prompts_per_step", target), ("max_tries", max_tries)] {
            if value == 0 {
                return Err(TrainError::Setting { key, value: "0".into(), expected: "at least 1" });
            }
        }
        if self.low.partial_cmp(&self.high) != Some(Ordering::Less) {
            let expected = "below filter.high";
            return Err(TrainError::Setting { key: "filter.low", value: self.low.to_string(), expected });
        }
        Ok(())
    }

    /// Returns true if some number of right answers in a group of `group` passes, where each answer is right (1) or
    /// wrong (0).
    pub fn keeps_some(&self, group: usize) -> bool {
        (0..=group).any(|right| self.verdict(right as f64 / group.max(1) as f64) == GroupVerdict::Keep)
    }

    /// Decides about a group with this mean accuracy. NaN (an empty group) counts as all wrong. A disabled filter keeps
    /// every group.
    pub fn verdict(&self, mean_accuracy: f64) -> GroupVerdict {
        if !self.enabled {
            GroupVerdict::Keep
        } else if mean_accuracy >= self.high {
            GroupVerdict::AllRight
        } else if mean_accuracy > self.low {
            GroupVerdict::Keep
        } else {
            GroupVerdict::AllWrong
        }
    }
}

/// What becomes of a group that was sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupFate {
    /// The step trains on it.
    Now,
    /// It passed the filter, but the step has enough groups: the next step trains on it.
    Next,
    /// It passed the filter, but neither this step nor the next needs it: dropped.
    Surplus,
    /// Dropped by the filter: its mean accuracy is at or below `low`.
    AllWrong,
    /// Dropped by the filter: its mean accuracy is at or above `high`.
    AllRight,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_band_is_open_at_both_ends() {
        let filter = GroupFilter::default();
        let verdicts = [0.0, 0.01, 0.0101, 0.1, 0.9, 0.9899, 0.99, 1.0, f64::NAN].map(|a| filter.verdict(a));
        use GroupVerdict::{AllRight as R, AllWrong as W, Keep as K};
        assert_eq!(verdicts, [W, W, K, K, K, K, R, R, W]);
    }

    #[test]
    fn it_follows_the_accuracy_that_the_recipe_pays_for() {
        let key = |named: Option<&str>, rewards: &[(&str, f64)]| {
            let rewards = rewards.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect();
            GroupFilter { key: named.map(Into::into), ..GroupFilter::default() }.key(&rewards)
        };
        for (named, rewards, expected) in [
            (None, &[("accuracy", 0.9), ("format", 0.1)][..], "accuracy"),
            (None, &[("accuracy", 0.5), ("inclusion", 0.9)], "accuracy"),
            (None, &[("accuracy", 0.0), ("inclusion", 0.9)], "inclusion"),
            (None, &[("inclusion", 0.9)], "inclusion"),
            (None, &[("inclusion", 0.0), ("exact", 1.0)], "inclusion"),
            (None, &[("accuracy", 0.0), ("inclusion", 0.0)], "accuracy"),
            (None, &[("exact", 1.0)], "accuracy"),
            (Some("exact"), &[("accuracy", 0.9), ("exact", 0.0)], "exact"),
            (Some(""), &[("inclusion", 0.9)], "inclusion"),
        ] {
            assert_eq!(key(named, rewards), expected, "{named:?} {rewards:?}");
        }
    }

    #[test]
    fn a_band_between_two_counts_of_right_answers_keeps_nothing() {
        let band = |low, high| GroupFilter { low, high, ..GroupFilter::default() };
        for (filter, group, keeps) in [
            (band(0.01, 0.99), 2, true),
            (band(0.01, 0.99), 1, false),
            (band(0.6, 0.9), 2, false),
            (band(0.6, 0.9), 3, true),
            (band(0.5, 0.75), 4, false),
            (band(-1.0, 2.0), 1, true),
            (band(1.0, 2.0), 10, false),
            (band(-1.0, 0.0), 10, false),
            (GroupFilter { enabled: false, ..band(0.6, 0.9) }, 2, true),
        ] {
            assert_eq!(filter.keeps_some(group), keeps, "{filter:?} {group}");
        }
    }
}
