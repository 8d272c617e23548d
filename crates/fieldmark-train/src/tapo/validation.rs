//! Validation on held-out samples: one greedy answer to each question about its anchor image, scored with the run's
//! rewards.
//!
//! Reference: `val_before_train` and `val_freq` of EasyR1, whose trainer scores its validation set before the first
//! step, every `val_freq` steps, and at the end.

use std::time::Instant;

use burn::module::Module;
use fieldmark_generate::GenerationConfig;
use fieldmark_model::Qwen25Vl;
use fieldmark_stream::StreamKey;

use super::{
    config::TapoConfig,
    diagnose::Accuracies,
    metrics::TapoValidation,
    rollout::{Phase, Responder, Wanted},
    source::TripletSource,
};
use crate::{
    TrainError,
    parallel::Replicas,
    tapo::{
        advantage::Estimator,
        rollout::{Group, RolloutCounts, TripletPrompt, mean, mean_parts, truncated},
    },
    trainer::{Decoding, DecodingTiming, Interrupt, OnEvent, TrainEvent},
};

/// A validation set, with the settings and the responder that answer and score it.
pub(super) struct Held<'a, S> {
    pub(super) config: &'a TapoConfig,
    pub(super) responder: &'a Responder<'a>,
    pub(super) rows: &'a S,
    pub(super) stop: &'a Interrupt,
}

impl<S: TripletSource> Held<'_, S> {
    /// Answers every question, reports the means and returns them. `made` is the number of updates and of rollout steps
    /// made.
    pub(super) fn score(
        &self,
        model: &Qwen25Vl,
        replicas: &Replicas,
        streams: &StreamKey,
        made: (usize, usize),
        on_event: &mut OnEvent<'_>,
    ) -> Result<TapoValidation, TrainError> {
        let start = Instant::now();
        let (model, replicas) = (model.valid(), replicas.without_autodiff());
        let generation = GenerationConfig {
            max_batch: self.config.prompts_at_once(),
            ..GenerationConfig::greedy(self.config.max_new_tokens, self.responder.eos.clone())
        };
        let counts = RolloutCounts { anchor: 1, positive: 0 };
        let wanted =
            Wanted { counts, estimator: Estimator::Grpo, generation: &generation, key: streams, stop: self.stop };
        let numbers: Vec<usize> = (0..self.rows.len()).collect();
        let mut answers: Vec<Group> = Vec::with_capacity(self.rows.len());
        let mut phase = Phase::new(Decoding::Validation, made.1);
        phase.asks_for(self.rows.len(), on_event)?;
        for numbers in numbers.chunks(self.config.chunk) {
            let prompts: Vec<TripletPrompt> =
                numbers.iter().map(|&row| self.rows.prompt(row, 0)).collect::<Result<_, _>>()?;
            let mut hear = |sampled| phase.hear(sampled, on_event);
            let found =
                self.responder.respond(&model, &prompts, &wanted, &replicas, |_, group, _| Ok(group), &mut hear);
            answers.extend(found?);
            phase.check()?;
        }
        let right = Accuracies::of(&answers, self.config.think);
        let found = TapoValidation {
            step: made.0,
            rollout_step: made.1,
            reward: mean(&answers, |_| true, |answer| answer.reward.overall),
            accuracy: mean(&answers, |_| true, |answer| answer.reward.accuracy),
            rewards: mean_parts(&answers),
            strict: right.strict,
            inclusion: right.inclusion,
            response_tokens: mean(&answers, |_| true, |answer| answer.response.ids.len() as f64),
            truncated: mean(&answers, |_| true, truncated),
            answers: answers.len(),
        };
        let tokens = answers.iter().flat_map(|group| &group.rollouts).map(|answer| answer.response.ids.len()).sum();
        let timing = DecodingTiming::new(Decoding::Validation, found.step, found.rollout_step, tokens, start.elapsed());
        on_event(TrainEvent::Validation(&answers, &found, &timing))?;
        Ok(found)
    }
}

impl TapoConfig {
    /// Number of prompts encoded at a time when rollouts are sampled. In validation each prompt has one answer, and
    /// encoding more prompts at a time would take more memory than training.
    fn prompts_at_once(&self) -> usize {
        let counts = [self.anchor_rollouts, self.positive_rollouts];
        let fewest = counts.into_iter().filter(|count| *count > 0).min().unwrap_or(1);
        self.generation_batch.div_ceil(fewest)
    }

    /// Returns true if a run over `rows` samples scores its validation set after `step` of `steps` steps, at least 1.
    pub(super) fn validates(&self, step: usize, steps: usize, rows: usize) -> bool {
        step == steps || self.is_due(step, rows)
    }

    /// Returns true after every `eval_every` steps, or once an epoch over `rows` samples if it is not set.
    pub(super) fn is_due(&self, step: usize, rows: usize) -> bool {
        let every = self.eval_every.unwrap_or_else(|| (rows / self.prompts_per_step.max(1)).max(1));
        every > 0 && step.is_multiple_of(every)
    }
}
