//! Draws the rollouts of a step: chunks of samples in shuffled order, until enough groups pass the filter.

use std::time::Instant;

use burn::{module::Module, tensor::Device};
use fieldmark_generate::{GenerationConfig, Sampling};
use fieldmark_model::Qwen25Vl;
use fieldmark_stream::StreamKey;

use super::{
    filter::{GroupBuffer, GroupVerdict},
    gap::SamplerGap,
    group::{Group, RolloutCounts, TripletPrompt, mean, mean_parts, truncated},
    image_role::ImageRole,
    responder::{Responder, Wanted},
};
use crate::{
    TrainError, TrainEvent,
    gradient::Scorer,
    tapo::{
        config::TapoConfig,
        diagnose::Accuracies,
        items::{score, update_sequences},
        metrics::RolloutMetrics,
        source::TripletSource,
        state::{DrawnGroup, TapoState},
    },
    trainer::{Decoding, DecodingTiming, Engine, OnEvent},
};

/// Draws prompts from a source and samples groups of responses to them.
pub(in crate::tapo) struct Drawer<'a, S> {
    pub(in crate::tapo) source: &'a S,
    /// Groups that passed the filter and wait for a step.
    pub(in crate::tapo) buffer: GroupBuffer<DrawnGroup>,
    /// Number of prompts drawn so far, over all epochs.
    pub(in crate::tapo) drawn: usize,
}

impl<S: TripletSource> Drawer<'_, S> {
    /// Draws chunks until the step has enough groups or no tries are left. The returned groups have their advantages,
    /// for any estimator. `step` is the number of the step, from 0.
    #[allow(clippy::too_many_arguments)]
    pub(in crate::tapo) fn draw(
        &mut self,
        config: &TapoConfig,
        responder: &Responder<'_>,
        streams: &StreamKey,
        step: usize,
        model: &Qwen25Vl,
        engine: &Engine<TapoState>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<(Vec<DrawnGroup>, RolloutMetrics), TrainError> {
        let start = Instant::now();
        let (sampler, replicas) = (model.valid(), engine.replicas.without_autodiff());
        let generation = GenerationConfig {
            sampling: Sampling::nucleus(config.temperature, config.top_p),
            max_batch: config.generation_batch,
            ..GenerationConfig::greedy(config.max_new_tokens, responder.eos.clone())
        };
        let counts = RolloutCounts { anchor: config.anchor_rollouts, positive: config.positive_rollouts };
        let mut all = Vec::new();
        let mut chunk = 0;
        while self.buffer.wants_more() {
            let key = streams.word("rollout").number(step as u64).number(chunk);
            let places = self.next_places(config.chunk, streams);
            let prompts: Vec<TripletPrompt> =
                places.iter().map(|&(row, epoch)| self.source.prompt(row, epoch)).collect::<Result<_, _>>()?;
            let wanted = Wanted { counts, estimator: config.estimator, generation: &generation, key: &key };
            let judged = responder.respond(&sampler, &prompts, &wanted, &replicas, |sampler, group, device| {
                judge(config, &engine.scorer, sampler, group, device)
            })?;
            let (verdicts, groups): (Vec<GroupVerdict>, Vec<Group>) = judged.into_iter().unzip();
            on_event(TrainEvent::Rollouts(&groups))?;
            all.extend(groups.iter().cloned());
            let drawn = places.into_iter().zip(groups).map(|((row, epoch), group)| DrawnGroup { row, epoch, group });
            self.buffer.offer(verdicts.into_iter().zip(drawn));
            chunk += 1;
        }
        let (mut groups, counts) = self.buffer.take();
        let metrics = RolloutMetrics {
            step: engine.updater.done(),
            rollout_step: step + 1,
            reward: mean(&all, |_| true, |rollout| rollout.reward.overall),
            accuracy_anchor: mean(&all, |rollout| rollout.role == ImageRole::Anchor, |rollout| rollout.reward.accuracy),
            accuracy_positive: mean(
                &all,
                |rollout| rollout.role == ImageRole::Positive,
                |rollout| rollout.reward.accuracy,
            ),
            rewards: mean_parts(&all),
            right: Accuracies::of(&all),
            response_tokens: mean(&all, |_| true, |rollout| rollout.response.ids.len() as f64),
            truncated: mean(&all, |_| true, truncated),
            sampler: SamplerGap::of(&all, config.update_image),
            groups: counts,
        };
        let tokens = all.iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.response.ids.len()).sum();
        let timing =
            DecodingTiming::new(Decoding::Rollouts, metrics.step, metrics.rollout_step, tokens, start.elapsed());
        on_event(TrainEvent::Drawn(&metrics, &timing))?;
        config.estimator.over_step(&mut groups)?;
        Ok((groups, metrics))
    }

    /// Returns row and epoch of the next `count` samples. Each epoch has its own shuffled order.
    fn next_places(&mut self, count: usize, streams: &StreamKey) -> Vec<(usize, usize)> {
        let rows = self.source.len();
        let mut places = Vec::with_capacity(count);
        let mut order = (usize::MAX, Vec::new());
        for _ in 0..count {
            let (epoch, place) = (self.drawn / rows, self.drawn % rows);
            if order.0 != epoch {
                order = (epoch, (0..rows).collect());
                streams.word("tapo").word("order").number(epoch as u64).stream().shuffle(&mut order.1);
            }
            places.push((order.1[place], epoch));
            self.drawn += 1;
        }
        places
    }
}

/// Filters a group and adds log π_old if the group passes. It is computed now, so that a group that waits for the next
/// step has the log-probabilities of the policy that sampled it.
fn judge(
    config: &TapoConfig,
    scorer: &Scorer,
    sampler: &Qwen25Vl,
    mut group: Group,
    device: &Device,
) -> Result<(GroupVerdict, Group), TrainError> {
    let verdict = config.filter.verdict(group.mean_accuracy());
    if verdict == GroupVerdict::Keep {
        let samples = update_sequences(config.update_image, &group);
        let found = score(scorer, config.micro_batch, sampler, samples.iter(), device)?;
        for (rollout, old_logp) in group.rollouts.iter_mut().zip(found) {
            rollout.old_logp = old_logp;
        }
    }
    Ok((verdict, group))
}
