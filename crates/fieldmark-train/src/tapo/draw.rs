//! The rollouts of a step: chunks of samples in a shuffled order, until enough groups pass the filter.

use std::time::Instant;

use burn::{module::Module, tensor::Device};
use fieldmark_generate::{GenerationConfig, Sampling};
use fieldmark_model::Qwen25Vl;

use super::{TapoEvent, TapoTrainer, TripletSource, state::DrawnGroup};
use crate::{
    Decoding, DecodingTiming, RolloutMetrics, TrainError,
    tapo::rollout::{
        Group, GroupVerdict, Role, RolloutCounts, RolloutGroup, SamplerGap, TripletPrompt, mean, mean_parts,
        rollout_groups, truncated,
    },
    workers::on_replicas,
};

/// Prompts for each of `workers`, with the number of the first.
pub(super) fn shares(prompts: &[TripletPrompt], workers: usize) -> Vec<(usize, &[TripletPrompt])> {
    let share = prompts.len().div_ceil(workers).max(1);
    prompts.chunks(share).enumerate().map(|(i, prompts)| (i * share, prompts)).collect()
}

impl<S: TripletSource> TapoTrainer<'_, S> {
    /// Draws chunks until the step's groups are full or the tries are used up.
    pub(super) fn draw(
        &mut self,
        model: &Qwen25Vl,
        on_event: &mut impl FnMut(TapoEvent<'_>) -> Result<(), TrainError>,
    ) -> Result<Vec<DrawnGroup>, TrainError> {
        let start = Instant::now();
        let sampler = model.valid();
        let replicas = self.replicas.without_autodiff();
        let generation = GenerationConfig {
            sampling: Sampling::nucleus(self.config.temperature, self.config.top_p),
            max_batch: self.config.generation_batch,
            ..GenerationConfig::greedy(self.config.max_new_tokens, self.eos.clone())
        };
        let counts = RolloutCounts { anchor: self.config.anchor_rollouts, positive: self.config.positive_rollouts };
        let mut all = Vec::new();
        let mut chunk = 0;
        while self.buffer.wants_more() {
            let key = self.streams.word("rollout").number(self.step as u64).number(chunk);
            let places = self.next_places();
            let prompts: Vec<TripletPrompt> =
                places.iter().map(|&(row, epoch)| self.source.prompt(row, epoch)).collect::<Result<_, _>>()?;
            let sampled = on_replicas(
                &sampler,
                &shares(&prompts, replicas.len()),
                &replicas,
                |sampler, (first, prompts), device| {
                    let mut groups = rollout_groups(
                        sampler,
                        prompts,
                        *first,
                        counts,
                        self.config.estimator,
                        &generation,
                        &self.rewards,
                        self.tokenizer,
                        &key,
                        device,
                    )?;
                    self.score_old(sampler, &mut groups, device)?;
                    Ok(groups)
                },
            )?;
            let groups: Vec<Group> = sampled.into_iter().flatten().collect();
            on_event(TapoEvent::Rollouts(&groups))?;
            all.extend(groups.iter().cloned());
            let drawn = places.into_iter().zip(groups);
            self.buffer.offer(drawn.map(|((row, epoch), group)| DrawnGroup { row, epoch, group }));
            chunk += 1;
        }
        let (groups, counts) = self.buffer.take();
        let metrics = RolloutMetrics {
            step: self.updater.done(),
            rollout_step: self.step + 1,
            reward: mean(&all, |_| true, |rollout| rollout.reward.overall),
            accuracy_anchor: mean(&all, |rollout| rollout.role == Role::Anchor, |rollout| rollout.reward.accuracy),
            accuracy_positive: mean(&all, |rollout| rollout.role == Role::Positive, |rollout| rollout.reward.accuracy),
            rewards: mean_parts(&all),
            response_tokens: mean(&all, |_| true, |rollout| rollout.response.ids.len() as f64),
            truncated: mean(&all, |_| true, truncated),
            sampler: SamplerGap::of(&all, self.config.update_image),
            groups: counts,
        };
        let tokens = all.iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.response.ids.len()).sum();
        let timing =
            DecodingTiming::new(Decoding::Rollouts, metrics.step, metrics.rollout_step, tokens, start.elapsed());
        on_event(TapoEvent::Drawn(&metrics, &timing))?;
        Ok(groups)
    }

    /// Row and epoch of the next chunk of samples; the order is shuffled anew in each epoch.
    fn next_places(&mut self) -> Vec<(usize, usize)> {
        let rows = self.source.len();
        let mut places = Vec::with_capacity(self.config.chunk);
        let mut order = (usize::MAX, Vec::new());
        for _ in 0..self.config.chunk {
            let (epoch, place) = (self.drawn / rows, self.drawn % rows);
            if order.0 != epoch {
                order = (epoch, (0..rows).collect());
                self.streams.word("tapo").word("order").number(epoch as u64).stream().shuffle(&mut order.1);
            }
            places.push((order.1[place], epoch));
            self.drawn += 1;
        }
        places
    }

    /// log π_old of the groups worth learning from. Taken now, so that a group that waits for the next step keeps those of
    /// the policy that sampled it.
    fn score_old(&self, sampler: &Qwen25Vl, groups: &mut [Group], device: &Device) -> Result<(), TrainError> {
        for group in groups {
            if self.config.filter.verdict(group.mean_accuracy()) != GroupVerdict::Keep {
                continue;
            }
            let items = self.items(group);
            let found = self.score(sampler, items.iter().map(|item| &item.update), device)?;
            for (rollout, old_logp) in group.rollouts.iter_mut().zip(found) {
                rollout.old_logp = old_logp;
            }
        }
        Ok(())
    }
}
