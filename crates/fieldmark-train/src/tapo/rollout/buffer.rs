//! Collects the groups of a step. Deviations from the released code: a chunk without a kept group adds nothing (there the
//! whole chunk is kept, with advantage 0), a chunk has no more prompts than the step still needs and surplus groups go
//! to the next step (there chunks are whole and the surplus is thrown away: `whole_chunks`, `surplus`), and the number of
//! tries is limited (there it is not).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::filter::{GroupFate, GroupVerdict, Surplus};
use crate::{TrainError, tapo::config::TapoConfig};

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
    /// Number of kept groups that neither this step nor the next needs.
    pub dropped: usize,
    /// Number of groups missing from a full step.
    pub short: usize,
}

/// Collects the groups that pass the filter until a step has enough. Surplus groups wait for the next step, and no
/// longer.
///
/// Checkpoints store the [surplus](Self::surplus). The policy of the step before sampled those groups, so they must
/// keep the old log-probabilities from then.
#[derive(Debug, Clone)]
pub(crate) struct GroupBuffer<G> {
    target: usize,
    /// Number of prompts in a whole chunk.
    chunk: usize,
    /// Whether a chunk may have more prompts than groups are missing.
    whole: bool,
    /// Largest number of prompts drawn for a step.
    most: usize,
    /// Largest number of groups that wait for the next step.
    waiting: usize,
    groups: VecDeque<G>,
    counts: FilterCounts,
}

impl<G> GroupBuffer<G> {
    /// Makes an empty buffer.
    ///
    /// # Errors
    /// Returns an error if the number of groups of a step or of tries is 0, or if the filter's `low` is not below its
    /// `high`.
    pub fn new(config: &TapoConfig) -> Result<Self, TrainError> {
        let (target, whole) = (config.prompts_per_step, config.whole_chunks);
        config.filter.validate(target, config.max_tries)?;
        let chunk = if whole { config.chunk } else { config.chunk.min(target) };
        let waiting = if config.surplus == Surplus::Drop { 0 } else { target };
        let most = config.max_tries.saturating_mul(chunk);
        let counts = FilterCounts::default();
        Ok(Self { target, chunk, whole, most, waiting, groups: VecDeque::new(), counts })
    }

    /// Number of prompts to draw next: a chunk, or as many as groups are missing, or 0 if the step has enough groups or
    /// no tries are left.
    pub fn wanted(&self) -> usize {
        let missing = self.target.saturating_sub(self.groups.len());
        let left = self.most.saturating_sub(self.counts.offered);
        match missing {
            0 => 0,
            _ if self.whole => self.chunk.min(left),
            missing => self.chunk.min(missing).min(left),
        }
    }

    /// Keeps the groups of one chunk that pass the filter, in order, and returns what becomes of each. Each group comes
    /// with its verdict. Each call counts as one try.
    pub fn offer(&mut self, groups: impl IntoIterator<Item = (GroupVerdict, G)>) -> Vec<GroupFate> {
        self.counts.tries += 1;
        let fates = groups.into_iter().map(|(verdict, group)| {
            self.counts.offered += 1;
            match verdict {
                GroupVerdict::Keep => self.keep(group),
                GroupVerdict::AllRight => {
                    self.counts.all_right += 1;
                    GroupFate::AllRight
                }
                GroupVerdict::AllWrong => {
                    self.counts.all_wrong += 1;
                    GroupFate::AllWrong
                }
            }
        });
        fates.collect()
    }

    fn keep(&mut self, group: G) -> GroupFate {
        self.counts.kept += 1;
        let place = self.groups.len();
        if place >= self.target + self.waiting {
            self.counts.dropped += 1;
            return GroupFate::Surplus;
        }
        self.groups.push_back(group);
        if place < self.target { GroupFate::Now } else { GroupFate::Next }
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
    use crate::tapo::rollout::GroupFilter;

    #[derive(Debug, Clone, PartialEq)]
    struct Group(usize, f64);

    fn buffer(prompts_per_step: usize, chunk: usize, whole_chunks: bool) -> GroupBuffer<Group> {
        GroupBuffer::new(&TapoConfig { prompts_per_step, chunk, whole_chunks, ..TapoConfig::default() }).unwrap()
    }

    /// Groups with the verdicts of the default filter.
    fn judged<const N: usize>(groups: [Group; N]) -> [(GroupVerdict, Group); N] {
        groups.map(|group| (GroupFilter::default().verdict(group.1), group))
    }

    fn good(count: usize) -> Vec<(GroupVerdict, Group)> {
        (0..count).map(|number| (GroupVerdict::Keep, Group(number, 0.5))).collect()
    }

    #[test]
    fn a_chunk_has_no_more_prompts_than_groups_are_missing() {
        let mut step = buffer(5, 4, false);
        assert_eq!(step.wanted(), 4);
        step.offer(good(2));
        assert_eq!(step.wanted(), 3);
        step.offer(good(2));
        assert_eq!(step.wanted(), 1);
        step.offer(judged([Group(0, 0.0)]));
        assert_eq!(step.wanted(), 1);
        step.offer(good(1));
        assert_eq!(step.wanted(), 0);
        assert!(step.take().0.len() == 5 && step.surplus().next().is_none());
        // A small step with the default chunk: what it needs, and not 128.
        assert_eq!((buffer(2, 128, false).wanted(), buffer(2, 128, true).wanted()), (2, 128));
        assert_eq!((buffer(384, 128, false).wanted(), buffer(384, 128, true).wanted()), (128, 128));
    }

    #[test]
    fn surplus_waits_for_one_step_and_is_then_dropped() {
        use GroupFate::{Next, Now, Surplus as Dropped};
        let mut step = buffer(2, 6, true);
        assert_eq!(step.offer(good(6)), [Now, Now, Next, Next, Dropped, Dropped]);
        let (groups, counts) = step.take();
        assert_eq!((groups.len(), counts.kept, counts.dropped), (2, 6, 2));
        assert_eq!(step.wanted(), 0);
        let (groups, counts) = step.take();
        assert_eq!((groups.len(), counts.carried_in, counts.dropped, counts.offered), (2, 2, 0, 0));
        assert_eq!(step.wanted(), 6);

        let config =
            TapoConfig { prompts_per_step: 2, whole_chunks: true, surplus: Surplus::Drop, ..TapoConfig::default() };
        let mut step = GroupBuffer::new(&config).unwrap();
        assert_eq!(step.offer(good(4)), [Now, Now, Dropped, Dropped]);
        assert_eq!((step.take().1.dropped, step.surplus().count()), (2, 0));
    }

    #[test]
    fn surplus_waits_in_order_and_dead_chunks_add_nothing() {
        use GroupFate::{AllRight, AllWrong, Next, Now};
        let mut buffer = buffer(3, 4, true);
        assert_eq!(buffer.offer(judged([Group(0, 0.0), Group(1, 1.0)])), [AllWrong, AllRight]);
        assert!(buffer.surplus().next().is_none() && buffer.wanted() > 0);
        buffer.offer(judged([Group(2, 0.5), Group(3, 0.2)]));
        assert!(buffer.wanted() > 0);
        let fates = buffer.offer(judged([Group(4, 0.5), Group(5, 0.0), Group(6, 0.7), Group(7, 0.3)]));
        assert_eq!(fates, [Now, AllWrong, Next, Next]);
        assert_eq!(buffer.wanted(), 0);

        let (groups, counts) = buffer.take();
        assert_eq!(groups.iter().map(|g| g.0).collect::<Vec<_>>(), [2, 3, 4]);
        let expected =
            FilterCounts { tries: 3, offered: 8, kept: 5, all_right: 1, all_wrong: 2, ..FilterCounts::default() };
        assert_eq!(counts, expected);

        let surplus: Vec<Group> = buffer.surplus().cloned().collect();
        let mut buffer = self::buffer(3, 4, true).with_surplus(surplus);
        buffer.offer(judged([Group(8, 0.4)]));
        let (groups, counts) = buffer.take();
        assert_eq!(groups.iter().map(|g| g.0).collect::<Vec<_>>(), [6, 7, 8]);
        assert_eq!((counts.carried_in, counts.tries, counts.kept), (2, 1, 1));
    }

    #[test]
    fn without_a_filter_every_group_stays() {
        let filter = GroupFilter { enabled: false, ..GroupFilter::default() };
        let mut buffer = buffer(3, 3, false);
        buffer.offer([Group(0, 0.0), Group(1, 1.0), Group(2, 0.5)].map(|group| (filter.verdict(group.1), group)));
        let (groups, counts) = buffer.take();
        assert_eq!(groups.iter().map(|g| g.0).collect::<Vec<_>>(), [0, 1, 2]);
        let expected = FilterCounts { tries: 1, offered: 3, kept: 3, ..FilterCounts::default() };
        assert_eq!(counts, expected);
    }

    #[test]
    fn prompts_are_bounded_and_a_short_step_says_so() {
        // 20 tries of a chunk of 3: small chunks at the end count as the part of a try that they are.
        let mut buffer = buffer(4, 3, false);
        buffer.offer(judged([Group(0, 0.5), Group(1, 0.5), Group(2, 0.5)]));
        let mut drawn = 3;
        while buffer.wanted() > 0 {
            assert_eq!(buffer.wanted(), 1);
            buffer.offer(judged([Group(3, 1.0)]));
            drawn += 1;
        }
        let (groups, counts) = buffer.take();
        assert_eq!((groups.len(), counts.offered, counts.tries, counts.short), (3, 60, 58, 1));
        assert!(drawn == 60 && buffer.wanted() == 3);
    }

    #[test]
    fn senseless_settings_are_refused() {
        let band = GroupFilter { low: 0.5, high: 0.5, ..GroupFilter::default() };
        for config in [
            TapoConfig { filter: band, ..TapoConfig::default() },
            TapoConfig { prompts_per_step: 0, ..TapoConfig::default() },
            TapoConfig { max_tries: 0, ..TapoConfig::default() },
        ] {
            assert!(GroupBuffer::<Group>::new(&config).is_err());
        }
    }
}
