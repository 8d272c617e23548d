//! The rows that TAPO reports, for the rollouts of each step and for each update: lines of `metrics.jsonl`. A number
//! that is not finite becomes `null`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TapoParts;
use crate::tapo::{
    diagnose::Accuracies,
    rollout::{FilterCounts, SamplerGap},
};

/// Measurements of one TAPO update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TapoMetrics {
    /// Number of the update, from 1. Skipped updates count.
    pub step: usize,
    /// Rollout step of the update, from 1.
    pub rollout_step: usize,
    /// The loss and its parts.
    #[serde(flatten)]
    pub parts: TapoParts,
    /// Learning rate of the update.
    pub lr: f64,
    /// Global L2 norm of the gradients before clipping; at least 0.
    pub grad_norm: f64,
    /// Number of response tokens in the loss of this update.
    pub tokens: usize,
    /// Number of updates skipped so far, this one included, because their loss or gradient was not finite.
    pub skipped: usize,
    /// Mean number of updates made since the responses of this update were sampled. 0 if they come from the model that
    /// is updated.
    pub rollout_age: f64,
    /// Trained parts that have had no gradient since the first update, although others have. Absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub idle: Vec<String>,
    /// Names of the samples that made this update's loss or gradient not finite. Absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_finite: Vec<String>,
}

/// Measurements of the rollouts of one TAPO step. All rollouts count, also those of groups that the filter drops.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutMetrics {
    /// Number of updates made before these rollouts were drawn.
    pub step: usize,
    /// Rollout step, from 1.
    pub rollout_step: usize,
    /// Mean overall reward: the weighted sum of a response's rewards. From 0 to 1 with the default rewards.
    pub reward: f64,
    /// Mean accuracy over the rollouts from anchor images. Accuracy is the reward of the group filter (`filter.key`),
    /// before its weight; the default one is from 0 to 1.
    pub accuracy_anchor: f64,
    /// Mean accuracy over the rollouts from positive images; `null` if there are none.
    pub accuracy_positive: f64,
    /// Mean of each reward by name, before its weight.
    pub rewards: BTreeMap<String, f64>,
    /// Share of the responses that are right strictly and by inclusion, whatever the rewards are.
    #[serde(flatten)]
    pub right: Accuracies,
    /// Mean response length in tokens, at most `max_new_tokens`.
    pub response_tokens: f64,
    /// Share of responses cut at `max_new_tokens`, from 0 to 1.
    pub truncated: f64,
    /// Difference between the sampler's and the trainer's log-probabilities.
    #[serde(flatten)]
    pub sampler: SamplerGap,
    /// Numbers of groups that the filter kept and dropped.
    #[serde(flatten)]
    pub groups: FilterCounts,
    /// Number of groups that the step trains on, surplus groups of the step before included.
    pub trained_on: usize,
    /// Number of groups that the step trains on in which some advantage is not 0.
    pub teaching: usize,
    /// Mean number of updates made, before this step, since the groups that it trains on were sampled: 0 if all are
    /// new; `null` if there are none.
    pub rollout_age: f64,
    /// Prompts drawn for this step, divided by the number of rows: above 1, the step passes over the data more than
    /// once.
    pub passes: f64,
    /// Mean absolute change of a token's log-probability if the image is blanked, in nats, over a few responses. Absent
    /// if it was not measured in this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_gap: Option<f64>,
}

/// Means over the answers to a validation set: a line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TapoValidation {
    /// Number of updates made before.
    pub step: usize,
    /// Number of rollout steps made before. 0 is the model that the run started from.
    pub rollout_step: usize,
    /// Mean overall reward: the weighted sum of an answer's rewards. From 0 to 1 with the default rewards.
    #[serde(rename = "val_reward")]
    pub reward: f64,
    /// Mean accuracy: the reward of the group filter (`filter.key`), before its weight. The default one is from 0 to 1.
    #[serde(rename = "val_accuracy")]
    pub accuracy: f64,
    /// Mean of each reward by name, before its weight.
    #[serde(rename = "val_rewards")]
    pub rewards: BTreeMap<String, f64>,
    /// Share of the answers that the reward `accuracy` calls right, whatever the rewards are.
    #[serde(rename = "val_strict")]
    pub strict: f64,
    /// Share of the answers that the reward `inclusion` calls right, whatever the rewards are.
    #[serde(rename = "val_inclusion")]
    pub inclusion: f64,
    /// Mean length of the answers in tokens, at most `max_new_tokens`.
    #[serde(rename = "val_response_tokens")]
    pub response_tokens: f64,
    /// Share of answers cut at `max_new_tokens`, from 0 to 1.
    #[serde(rename = "val_truncated")]
    pub truncated: f64,
    /// Number of answers: one per sample.
    #[serde(rename = "val_answers")]
    pub answers: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::policy::SamplerCorrection;

    #[test]
    fn tapo_rows_are_flat() {
        let metrics = TapoMetrics {
            step: 1,
            rollout_step: 1,
            parts: TapoParts { loss: f64::NAN, kl_neg: 0.5, ..Default::default() },
            lr: 1e-6,
            grad_norm: 1.0,
            tokens: 10,
            skipped: 1,
            rollout_age: 2.0,
            idle: Vec::new(),
            non_finite: vec!["rows.jsonl:3".into()],
        };
        let value = serde_json::to_value(&metrics).unwrap();
        assert!(value["loss"].is_null());
        assert_eq!(value["kl_neg"], 0.5);
        assert_eq!(value["non_finite"][0], "rows.jsonl:3");
        assert!(value.get("sampler_weight").is_none() && value.get("idle").is_none());

        let sampler = Some(SamplerCorrection { sampler_weight: 1.25, sampler_capped: 0.5 });
        for sampler in [sampler, None] {
            let row = TapoMetrics { parts: TapoParts { sampler, ..Default::default() }, ..metrics.clone() };
            let text = serde_json::to_string(&row).unwrap();
            assert_eq!(text.contains(r#""sampler_weight":1.25,"sampler_capped":0.5,"#), sampler.is_some(), "{text}");
            assert_eq!(serde_json::from_str::<TapoMetrics>(&text).unwrap(), row);
        }
    }
}
