//! Dynamic sampling: keep the groups with 0.01 < mean accuracy < 0.99, and draw more prompts until the rollout batch is
//! full or `max_tries` is reached; then train on the groups there are. Deviations from the released code: a chunk
//! without a kept group adds nothing (there the whole chunk is kept, with advantage 0), surplus groups go to the next
//! step (there they are thrown away), and the number of tries is limited (there it is not).

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
};

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

/// Counts of the groups drawn for one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterCounts {
    /// Number of chunks drawn.
    pub tries: usize,
    /// Number of groups drawn.
    pub offered: usize,
    /// Number of groups kept.
    pub kept: usize,
    /// Number of groups dropped because all rollouts were right.
    pub all_right: usize,
    /// Number of groups dropped because all rollouts were wrong.
    pub all_wrong: usize,
    /// Number of surplus groups that came from the step before.
    pub carried_in: usize,
    /// Number of groups missing from a full step.
    pub short: usize,
}

/// Collects the groups that pass the filter until a step has enough. Surplus groups wait for the next step.
///
/// Checkpoints store the [surplus](Self::surplus). The policy of the step before sampled those groups, so they must
/// keep the old log-probabilities from then.
#[derive(Debug, Clone)]
pub(crate) struct GroupBuffer<G> {
    target: usize,
    max_tries: usize,
    groups: VecDeque<G>,
    counts: FilterCounts,
}

impl<G> GroupBuffer<G> {
    /// Makes an empty buffer for `target` groups per step and at most `max_tries` chunks per step (paper: 20).
    ///
    /// # Errors
    /// Returns an error if `target` or `max_tries` is 0, or if the filter's `low` is not below its `high`.
    pub fn new(filter: &GroupFilter, target: usize, max_tries: usize) -> Result<Self, TrainError> {
        filter.validate(target, max_tries)?;
        Ok(Self { target, max_tries, groups: VecDeque::new(), counts: FilterCounts::default() })
    }

    /// Keeps the groups of one chunk that pass the filter, in order. Each group comes with its verdict. Each call counts as
    /// one try.
    pub fn offer(&mut self, groups: impl IntoIterator<Item = (GroupVerdict, G)>) {
        self.counts.tries += 1;
        for (verdict, group) in groups {
            self.counts.offered += 1;
            match verdict {
                GroupVerdict::Keep => {
                    self.counts.kept += 1;
                    self.groups.push_back(group);
                }
                GroupVerdict::AllRight => self.counts.all_right += 1,
                GroupVerdict::AllWrong => self.counts.all_wrong += 1,
            }
        }
    }

    /// Whether there are enough groups for a step.
    pub fn is_full(&self) -> bool {
        self.groups.len() >= self.target
    }

    /// Whether another chunk should be drawn: the buffer is not full and there are tries left.
    pub fn wants_more(&self) -> bool {
        !self.is_full() && self.counts.tries < self.max_tries
    }

    /// The groups in the buffer, in order. Between two steps they are the surplus of the first.
    pub fn surplus(&self) -> impl Iterator<Item = &G> {
        self.groups.iter()
    }

    /// Restores a buffer between two steps, with this surplus.
    pub fn with_surplus(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.groups = groups.into_iter().collect();
        self.counts = FilterCounts { carried_in: self.groups.len(), ..FilterCounts::default() };
        self
    }

    /// Ends the step and returns its groups in the order drawn, with the counts. There are fewer groups than the
    /// target, or none, if the tries ran out. The surplus stays for the next step, which counts its tries from 0.
    pub fn take(&mut self) -> (Vec<G>, FilterCounts) {
        let n = self.target.min(self.groups.len());
        let taken = self.groups.drain(..n).collect();
        let next = FilterCounts { carried_in: self.groups.len(), ..FilterCounts::default() };
        let mut counts = std::mem::replace(&mut self.counts, next);
        counts.short = self.target - n;
        (taken, counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Group(usize, f64);

    /// Groups with the verdicts of the default filter.
    fn judged<const N: usize>(groups: [Group; N]) -> [(GroupVerdict, Group); N] {
        groups.map(|group| (GroupFilter::default().verdict(group.1), group))
    }

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
    fn without_a_filter_every_group_stays() {
        let filter = GroupFilter { enabled: false, ..GroupFilter::default() };
        let mut buffer = GroupBuffer::new(&filter, 3, 20).unwrap();
        buffer.offer([Group(0, 0.0), Group(1, 1.0), Group(2, 0.5)].map(|group| (filter.verdict(group.1), group)));
        let (groups, counts) = buffer.take();
        assert_eq!(groups.iter().map(|g| g.0).collect::<Vec<_>>(), [0, 1, 2]);
        let expected = FilterCounts { tries: 1, offered: 3, kept: 3, ..FilterCounts::default() };
        assert_eq!(counts, expected);
    }

    #[test]
    fn surplus_waits_in_order_and_dead_chunks_add_nothing() {
        let mut buffer = GroupBuffer::new(&GroupFilter::default(), 3, 20).unwrap();
        buffer.offer(judged([Group(0, 0.0), Group(1, 1.0)]));
        assert!(buffer.surplus().next().is_none() && buffer.wants_more());
        buffer.offer(judged([Group(2, 0.5), Group(3, 0.2)]));
        assert!(!buffer.is_full());
        buffer.offer(judged([Group(4, 0.5), Group(5, 0.0), Group(6, 0.7), Group(7, 0.3)]));
        assert!(buffer.is_full() && !buffer.wants_more());

        let (groups, counts) = buffer.take();
        assert_eq!(groups.iter().map(|g| g.0).collect::<Vec<_>>(), [2, 3, 4]);
        let expected =
            FilterCounts { tries: 3, offered: 8, kept: 5, all_right: 1, all_wrong: 2, carried_in: 0, short: 0 };
        assert_eq!(counts, expected);

        let surplus: Vec<Group> = buffer.surplus().cloned().collect();
        let mut buffer = GroupBuffer::new(&GroupFilter::default(), 3, 20).unwrap().with_surplus(surplus);
        buffer.offer(judged([Group(8, 0.4)]));
        let (groups, counts) = buffer.take();
        assert_eq!(groups.iter().map(|g| g.0).collect::<Vec<_>>(), [6, 7, 8]);
        assert_eq!((counts.carried_in, counts.tries, counts.kept), (2, 1, 1));
    }

    #[test]
    fn tries_are_bounded_and_a_short_step_says_so() {
        let mut buffer = GroupBuffer::new(&GroupFilter::default(), 4, 20).unwrap();
        buffer.offer(judged([Group(0, 0.5)]));
        while buffer.wants_more() {
            buffer.offer(judged([Group(1, 1.0)]));
        }
        let (groups, counts) = buffer.take();
        assert_eq!((groups.len(), counts.tries, counts.short), (1, 20, 3));
        assert!(buffer.wants_more());
    }

    #[test]
    fn senseless_settings_are_refused() {
        let band = GroupFilter { low: 0.5, high: 0.5, ..GroupFilter::default() };
        assert!(GroupBuffer::<Group>::new(&band, 1, 1).is_err());
        assert!(GroupBuffer::<Group>::new(&GroupFilter::default(), 0, 1).is_err());
        assert!(GroupBuffer::<Group>::new(&GroupFilter::default(), 1, 0).is_err());
    }
}
