//! Dynamic sampling: keep groups whose mean accuracy lies strictly inside (0.01, 0.99), draw more prompts until the
//! rollout batch is full or the tries are used up, then train on what there is. Differs from the released code:
//! a chunk in which nothing survives adds nothing (there it is kept whole, with advantage 0), surplus groups
//! go to the next step (there they are thrown away), and tries are bounded (there unlimited).

use std::{cmp::Ordering, collections::VecDeque};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The band of mean accuracy in which a group teaches something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GroupFilter {
    /// Without it every group is kept, as GRPO does.
    pub enabled: bool,
    /// The reward whose mean decides, before its weight; it must be among the rewards, with a weight of 0 if need be.
    pub key: String,
    /// Keep above this (exclusive). Released `filter_low`: 0.01.
    pub low: f64,
    /// Keep below this (exclusive). Released `filter_high`: 0.99.
    pub high: f64,
}

impl Default for GroupFilter {
    fn default() -> Self {
        Self { enabled: true, key: "accuracy".into(), low: 0.01, high: 0.99 }
    }
}

/// What the filter says of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupVerdict {
    /// Some rollouts are right and some wrong.
    Keep,
    /// Mean accuracy at or below the band.
    AllWrong,
    /// Mean accuracy at or above the band.
    AllRight,
}

impl GroupFilter {
    /// Checks the band, the number of groups wanted and the number of tries.
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

    /// Verdict on a group of this mean accuracy; NaN (a group of none) counts as all wrong. A filter that is not enabled
    /// keeps all.
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

/// A group of rollouts of one prompt, as far as the filter cares.
pub trait RolloutGroup {
    /// Mean of the reward that the filter looks at, usually 0..=1.
    fn mean_accuracy(&self) -> f64;
}

/// What happened to the groups offered for one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterCounts {
    /// Chunks offered.
    pub tries: usize,
    /// Groups offered.
    pub offered: usize,
    /// Groups kept.
    pub kept: usize,
    /// Groups dropped because all rollouts were right.
    pub all_right: usize,
    /// Groups dropped because all rollouts were wrong.
    pub all_wrong: usize,
    /// Groups that came from the step before.
    pub carried_in: usize,
    /// Groups missing from a full batch.
    pub short: usize,
}

/// Collects surviving groups until a step's rollout batch is full; what is too much waits for the next step.
///
/// A checkpoint carries the [surplus](Self::surplus). Carried groups were sampled by the policy of the step before: keep
/// their old log-probabilities with them.
#[derive(Debug, Clone)]
pub(crate) struct GroupBuffer<G> {
    filter: GroupFilter,
    target: usize,
    max_tries: usize,
    groups: VecDeque<G>,
    counts: FilterCounts,
}

impl<G: RolloutGroup> GroupBuffer<G> {
    /// An empty buffer for `target` groups a step and at most `max_tries` chunks a step (paper: 20).
    ///
    /// # Errors
    /// A target or a number of tries of 0, or an empty band.
    pub fn new(filter: GroupFilter, target: usize, max_tries: usize) -> Result<Self, TrainError> {
        filter.validate(target, max_tries)?;
        Ok(Self { filter, target, max_tries, groups: VecDeque::new(), counts: FilterCounts::default() })
    }

    /// Judges one chunk's groups and keeps the survivors in their order. One call is one try.
    pub fn offer(&mut self, groups: impl IntoIterator<Item = G>) {
        self.counts.tries += 1;
        for group in groups {
            self.counts.offered += 1;
            match self.filter.verdict(group.mean_accuracy()) {
                GroupVerdict::Keep => {
                    self.counts.kept += 1;
                    self.groups.push_back(group);
                }
                GroupVerdict::AllRight => self.counts.all_right += 1,
                GroupVerdict::AllWrong => self.counts.all_wrong += 1,
            }
        }
    }

    /// Whether a full step's groups are there.
    pub fn is_full(&self) -> bool {
        self.groups.len() >= self.target
    }

    /// Whether another chunk should be drawn: not full, and tries left.
    pub fn wants_more(&self) -> bool {
        !self.is_full() && self.counts.tries < self.max_tries
    }

    /// The groups held, in order: between two steps, the surplus of the first.
    pub fn surplus(&self) -> impl Iterator<Item = &G> {
        self.groups.iter()
    }

    /// The buffer as it was between two steps with this surplus.
    pub fn with_surplus(mut self, groups: impl IntoIterator<Item = G>) -> Self {
        self.groups = groups.into_iter().collect();
        self.counts = FilterCounts { carried_in: self.groups.len(), ..FilterCounts::default() };
        self
    }

    /// Ends the step: its groups in order of arrival (fewer than the target if tries ran out, possibly none) and its
    /// counts. The surplus stays for the next step, whose tries start anew.
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

    impl RolloutGroup for Group {
        fn mean_accuracy(&self) -> f64 {
            self.1
        }
    }

    #[test]
    fn the_band_is_open_at_both_ends() {
        let filter = GroupFilter::default();
        let verdicts = [0.0, 0.01, 0.0101, 0.1, 0.9, 0.9899, 0.99, 1.0, f64::NAN].map(|a| filter.verdict(a));
        use GroupVerdict::{AllRight as R, AllWrong as W, Keep as K};
        assert_eq!(verdicts, [W, W, K, K, K, K, R, R, W]);
    }

    #[test]
    fn without_a_filter_every_group_stays() {
        let filter = GroupFilter { enabled: false, ..GroupFilter::default() };
        let mut buffer = GroupBuffer::new(filter, 3, 20).unwrap();
        buffer.offer([Group(0, 0.0), Group(1, 1.0), Group(2, 0.5)]);
        let (groups, counts) = buffer.take();
        assert_eq!(groups.iter().map(|g| g.0).collect::<Vec<_>>(), [0, 1, 2]);
        let expected = FilterCounts { tries: 1, offered: 3, kept: 3, ..FilterCounts::default() };
        assert_eq!(counts, expected);
    }

    #[test]
    fn surplus_waits_in_order_and_dead_chunks_add_nothing() {
        let mut buffer = GroupBuffer::new(GroupFilter::default(), 3, 20).unwrap();
        buffer.offer([Group(0, 0.0), Group(1, 1.0)]);
        assert!(buffer.surplus().next().is_none() && buffer.wants_more());
        buffer.offer([Group(2, 0.5), Group(3, 0.2)]);
        assert!(!buffer.is_full());
        buffer.offer([Group(4, 0.5), Group(5, 0.0), Group(6, 0.7), Group(7, 0.3)]);
        assert!(buffer.is_full() && !buffer.wants_more());

        let (groups, counts) = buffer.take();
        assert_eq!(groups.iter().map(|g| g.0).collect::<Vec<_>>(), [2, 3, 4]);
        let expected =
            FilterCounts { tries: 3, offered: 8, kept: 5, all_right: 1, all_wrong: 2, carried_in: 0, short: 0 };
        assert_eq!(counts, expected);

        let surplus: Vec<Group> = buffer.surplus().cloned().collect();
        let mut buffer = GroupBuffer::new(GroupFilter::default(), 3, 20).unwrap().with_surplus(surplus);
        buffer.offer([Group(8, 0.4)]);
        let (groups, counts) = buffer.take();
        assert_eq!(groups.iter().map(|g| g.0).collect::<Vec<_>>(), [6, 7, 8]);
        assert_eq!((counts.carried_in, counts.tries, counts.kept), (2, 1, 1));
    }

    #[test]
    fn tries_are_bounded_and_a_short_step_says_so() {
        let mut buffer = GroupBuffer::new(GroupFilter::default(), 4, 20).unwrap();
        buffer.offer([Group(0, 0.5)]);
        while buffer.wants_more() {
            buffer.offer([Group(1, 1.0)]);
        }
        let (groups, counts) = buffer.take();
        assert_eq!((groups.len(), counts.tries, counts.short), (1, 20, 3));
        assert!(buffer.wants_more());
    }

    #[test]
    fn senseless_settings_are_refused() {
        let band = GroupFilter { low: 0.5, high: 0.5, ..GroupFilter::default() };
        assert!(GroupBuffer::<Group>::new(band, 1, 1).is_err());
        assert!(GroupBuffer::<Group>::new(GroupFilter::default(), 0, 1).is_err());
        assert!(GroupBuffer::<Group>::new(GroupFilter::default(), 1, 0).is_err());
    }
}
