//! What held-out samples say of a policy: one greedy answer to each question about its anchor, scored by the run's rewards.
//!
//! Reference: `val_before_train` and `val_freq` of EasyR1, whose trainer scores its validation set before the first step, every
//! so many steps, and at the end.

use std::{collections::BTreeMap, time::Instant};

use burn::module::Module;
use fieldmark_generate::GenerationConfig;
use fieldmark_model::Qwen25Vl;
use serde::{Deserialize, Serialize};

use super::{TapoConfig, TapoEvent, TapoTrainer, TripletSource, draw::shares};
use crate::{
    Decoding, DecodingTiming, TrainError,
    tapo::{
        advantage::Estimator,
        rollout::{Group, RolloutCounts, TripletPrompt, mean, mean_parts, rollout_groups, truncated},
    },
    workers::on_replicas,
};

/// Means over the answers to a validation set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TapoValidation {
    /// Updates made before.
    pub step: usize,
    /// Rollout steps made before; 0 is the model that the run started from.
    pub rollout_step: usize,
    /// Mean overall reward.
    #[serde(rename = "val_reward")]
    pub reward: f64,
    /// Mean accuracy: of the reward that the group filter looks at.
    #[serde(rename = "val_accuracy")]
    pub accuracy: f64,
    /// Mean of each reward, before its weight.
    #[serde(rename = "val_rewards")]
    pub rewards: BTreeMap<String, f64>,
    /// Mean length of the answers, tokens.
    #[serde(rename = "val_response_tokens")]
    pub response_tokens: f64,
    /// Share of answers cut at the length limit.
    #[serde(rename = "val_truncated")]
    pub truncated: f64,
    /// Answers, one a sample.
    #[serde(rename = "val_answers")]
    pub answers: usize,
}

impl<S: TripletSource> TapoTrainer<'_, S> {
    /// Scores the validation set, if the run has one and it is due now.
    pub(super) fn validate_if_due(
        &mut self,
        model: &Qwen25Vl,
        on_event: &mut impl FnMut(TapoEvent<'_>) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let Some(rows) = self.validation else { return Ok(()) };
        let every = self.config.validation_steps(self.source.len());
        let due = match self.step {
            0 => self.unscored,
            step => step == self.steps || (every > 0 && step.is_multiple_of(every)),
        };
        self.unscored = false;
        if due { self.validate(model, rows, on_event) } else { Ok(()) }
    }

    fn validate(
        &self,
        model: &Qwen25Vl,
        rows: &S,
        on_event: &mut impl FnMut(TapoEvent<'_>) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let start = Instant::now();
        let (model, replicas) = (model.valid(), self.replicas.without_autodiff());
        let generation = GenerationConfig {
            max_batch: self.config.prompts_at_once(),
            ..GenerationConfig::greedy(self.config.max_new_tokens, self.eos.clone())
        };
        let counts = RolloutCounts { anchor: 1, positive: 0 };
        let numbers: Vec<usize> = (0..rows.len()).collect();
        let mut answers: Vec<Group> = Vec::with_capacity(rows.len());
        for numbers in numbers.chunks(self.config.chunk) {
            let prompts: Vec<TripletPrompt> =
                numbers.iter().map(|&row| rows.prompt(row, 0)).collect::<Result<_, _>>()?;
            let found = on_replicas(&model, &shares(&prompts, replicas.len()), &replicas, |model, share, device| {
                let (first, prompts) = *share;
                rollout_groups(
                    model,
                    prompts,
                    first,
                    counts,
                    Estimator::Grpo,
                    &generation,
                    &self.rewards,
                    self.tokenizer,
                    &self.streams,
                    device,
                )
            })?;
            answers.extend(found.into_iter().flatten());
        }
        let found = TapoValidation {
            step: self.updater.done(),
            rollout_step: self.step,
            reward: mean(&answers, |_| true, |answer| answer.reward.overall),
            accuracy: mean(&answers, |_| true, |answer| answer.reward.accuracy),
            rewards: mean_parts(&answers),
            response_tokens: mean(&answers, |_| true, |answer| answer.response.ids.len() as f64),
            truncated: mean(&answers, |_| true, truncated),
            answers: answers.len(),
        };
        let tokens = answers.iter().flat_map(|group| &group.rollouts).map(|answer| answer.response.ids.len()).sum();
        let timing = DecodingTiming::new(Decoding::Validation, found.step, found.rollout_step, tokens, start.elapsed());
        on_event(TapoEvent::Validation(&answers, &found, &timing))
    }
}

impl TapoConfig {
    /// Prompts that are read at once while rollouts are sampled. Here each has one answer, and no more of them are read, or
    /// a validation would take more memory than the training.
    fn prompts_at_once(&self) -> usize {
        let counts = [self.anchor_rollouts, self.positive_rollouts];
        let fewest = counts.into_iter().filter(|count| *count > 0).min().unwrap_or(1);
        self.generation_batch.div_ceil(fewest)
    }

    /// Rollout steps between two scorings of the validation set in a run over `rows` samples; 0 for none.
    fn validation_steps(&self, rows: usize) -> usize {
        self.eval_every.unwrap_or_else(|| (rows / self.prompts_per_step.max(1)).max(1))
    }
}
