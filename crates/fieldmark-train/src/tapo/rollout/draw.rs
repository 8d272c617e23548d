//! Draws the rollouts of a step: chunks of samples in shuffled order, until enough groups pass the filter.

use std::time::Instant;

use burn::{module::Module, tensor::Device};
use fieldmark_generate::{GenerationConfig, Sampling};
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::SupervisedSequence;
use fieldmark_stream::StreamKey;

use super::{
    buffer::GroupBuffer,
    filter::GroupVerdict,
    gap::SamplerGap,
    group::{Group, RolloutCounts, TripletPrompt, mean, mean_parts, truncated},
    image_role::ImageRole,
    phase::Phase,
    responder::{Responder, Wanted},
};
use crate::{
    TrainError, TrainEvent,
    gradient::Scorer,
    tapo::{
        config::TapoConfig,
        diagnose::{Accuracies, blanked, gap, outlook_counted, teaching},
        items::{attach, score, update_sequences},
        metrics::RolloutMetrics,
        source::TripletSource,
        state::{DrawnGroup, TapoState},
    },
    trainer::{Decoding, DecodingTiming, Engine, OnEvent},
};

/// Number of responses that are scored again with a blank image. A few say whether the model looks at all.
const BLANKED: usize = 4;

/// What a step draws with.
pub(in crate::tapo) struct Drawing<'a> {
    pub(in crate::tapo) config: &'a TapoConfig,
    pub(in crate::tapo) responder: &'a Responder<'a>,
    pub(in crate::tapo) streams: &'a StreamKey,
    /// Number of the step, from 0.
    pub(in crate::tapo) step: usize,
    pub(in crate::tapo) engine: &'a Engine<TapoState>,
    /// Whether to say how many groups of the first chunk teach something.
    pub(in crate::tapo) tell_outlook: bool,
    /// Whether to measure how much the image matters.
    pub(in crate::tapo) look_at_images: bool,
}

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
    /// for any estimator. Stops early with [`GenerateError::Stopped`](fieldmark_generate::GenerateError) if the run is
    /// interrupted; the drawer must then be put back to where it was.
    pub(in crate::tapo) fn draw(
        &mut self,
        model: &Qwen25Vl,
        drawing: &Drawing<'_>,
        on_event: &mut OnEvent<'_>,
    ) -> Result<(Vec<DrawnGroup>, RolloutMetrics), TrainError> {
        let start = Instant::now();
        let &Drawing { config, responder, streams, step, engine, .. } = drawing;
        let (sampler, replicas) = (model.valid(), engine.replicas.without_autodiff());
        let generation = GenerationConfig {
            sampling: Sampling::nucleus(config.temperature, config.top_p),
            max_batch: config.generation_batch,
            ..GenerationConfig::greedy(config.max_new_tokens, responder.eos.clone())
        };
        let counts = RolloutCounts { anchor: config.anchor_rollouts, positive: config.positive_rollouts };
        let sampled = engine.updater.done();
        let mut phase = Phase::new(Decoding::Rollouts, step + 1);
        let mut all = Vec::new();
        let mut chunk = 0;
        while let wanted @ 1.. = self.buffer.wanted() {
            let key = streams.word("rollout").number(step as u64).number(chunk);
            let places = self.next_places(wanted, streams);
            let prompts: Vec<TripletPrompt> =
                places.iter().map(|&(row, epoch)| self.source.prompt(row, epoch)).collect::<Result<_, _>>()?;
            let (estimator, generation, stop) = (config.estimator, &generation, &engine.interrupt);
            let wanted = Wanted { counts, estimator, generation, key: &key, stop };
            phase.asks_for(wanted.responses(prompts.len()), on_event)?;
            let judge =
                |sampler: &Qwen25Vl, group, device: &Device| judge(config, &engine.scorer, sampler, group, device);
            let mut hear = |sampled| phase.hear(sampled, on_event);
            let judged = responder.respond(&sampler, &prompts, &wanted, &replicas, judge, &mut hear)?;
            phase.check()?;
            let (verdicts, groups): (Vec<GroupVerdict>, Vec<Group>) = judged.into_iter().unzip();
            let drawn = places.into_iter().zip(groups.iter().cloned());
            let drawn = drawn.map(|((row, epoch), group)| DrawnGroup { row, epoch, sampled, group });
            let fates = self.buffer.offer(verdicts.into_iter().zip(drawn));
            on_event(TrainEvent::Rollouts(&groups, &fates))?;
            if drawing.tell_outlook && chunk == 0 {
                outlook_counted(&groups).iter().try_for_each(|outlook| on_event(TrainEvent::Finding(outlook)))?;
            }
            all.extend(groups);
            chunk += 1;
        }
        let (mut groups, counts) = self.buffer.take();
        config.estimator.over_step(&mut groups)?;
        let image_gap = if drawing.look_at_images { self.image_gap(&sampler, drawing, &all, &groups)? } else { None };
        let metrics = RolloutMetrics {
            step: sampled,
            rollout_step: step + 1,
            reward: mean(&all, |_| true, |rollout| rollout.reward.overall),
            accuracy_anchor: mean(&all, |rollout| rollout.role == ImageRole::Anchor, |rollout| rollout.reward.accuracy),
            accuracy_positive: mean(
                &all,
                |rollout| rollout.role == ImageRole::Positive,
                |rollout| rollout.reward.accuracy,
            ),
            rewards: mean_parts(&all),
            right: Accuracies::of(&all, config.think),
            response_tokens: mean(&all, |_| true, |rollout| rollout.response.ids.len() as f64),
            truncated: mean(&all, |_| true, truncated),
            sampler: SamplerGap::of(&all, config.update_image),
            groups: counts,
            trained_on: groups.len(),
            teaching: teaching(&groups),
            rollout_age: groups.iter().map(|group| sampled.saturating_sub(group.sampled) as f64).sum::<f64>()
                / groups.len() as f64,
            passes: counts.offered as f64 / self.source.len() as f64,
            image_gap,
        };
        let tokens = all.iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.response.ids.len()).sum();
        let timing =
            DecodingTiming::new(Decoding::Rollouts, metrics.step, metrics.rollout_step, tokens, start.elapsed());
        on_event(TrainEvent::Drawn(&metrics, &timing))?;
        Ok((groups, metrics))
    }

    /// How much the log-probabilities of a few responses change if the image is blanked: the first response to each of
    /// the first prompts, after the anchor. `None` if nothing was sampled.
    fn image_gap(
        &self,
        sampler: &Qwen25Vl,
        drawing: &Drawing<'_>,
        all: &[Group],
        groups: &[DrawnGroup],
    ) -> Result<Option<f64>, TrainError> {
        let groups: Vec<&Group> = match all {
            [] => groups.iter().map(|drawn| &drawn.group).collect(),
            all => all.iter().collect(),
        };
        let responses =
            groups.iter().take(BLANKED).filter_map(|group| Some((&group.prompt.anchor, group.rollouts.first()?)));
        let (seen, blank): (Vec<_>, Vec<_>) = responses
            .map(|(anchor, rollout)| {
                [anchor.clone(), blanked(anchor)].map(|prompt| attach(&prompt, &rollout.response.ids))
            })
            .map(|[seen, blank]| (seen, blank))
            .unzip();
        let device = drawing.engine.replicas.main().clone().without_autodiff();
        let score = |samples: &[SupervisedSequence]| {
            score(&drawing.engine.scorer, drawing.config.micro_batch, sampler, samples.iter(), &device)
        };
        Ok(gap(&score(&seen)?, &score(&blank)?))
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
