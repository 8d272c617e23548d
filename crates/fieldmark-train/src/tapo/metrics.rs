//! The rows that TAPO reports: of the rollouts of a step, and of each update.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::TapoParts;
use crate::tapo::rollout::{FilterCounts, SamplerGap};

/// Measurements of one TAPO update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TapoMetrics {
    /// Update, from 1.
    pub step: usize,
    /// Rollout step the update belongs to, from 1.
    pub rollout_step: usize,
    /// Parts of the loss.
    #[serde(flatten)]
    pub parts: TapoParts,
    /// Learning rate used.
    pub lr: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Response tokens in the loss.
    pub tokens: usize,
    /// Updates skipped so far for a loss or gradient that was not finite.
    pub skipped: usize,
    /// Samples to which this update's loss or gradient owes that it is not finite; empty where it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_finite: Vec<String>,
}

/// Measurements of the rollouts of one TAPO step, filtered-out groups included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutMetrics {
    /// Update after which these rollouts were drawn.
    pub step: usize,
    /// Rollout step, from 1.
    pub rollout_step: usize,
    /// Mean overall reward.
    pub reward: f64,
    /// Mean accuracy of anchor rollouts: of the reward that the group filter looks at.
    pub accuracy_anchor: f64,
    /// Mean accuracy of positive rollouts.
    pub accuracy_positive: f64,
    /// Mean of each reward, before its weight.
    pub rewards: BTreeMap<String, f64>,
    /// Mean response length, tokens.
    pub response_tokens: f64,
    /// Share of responses cut at the length limit.
    pub truncated: f64,
    /// How far sampler and trainer are apart.
    #[serde(flatten)]
    pub sampler: SamplerGap,
    /// What the group filter did.
    #[serde(flatten)]
    pub groups: FilterCounts,
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
            non_finite: vec!["rows.jsonl:3".into()],
        };
        let value = serde_json::to_value(&metrics).unwrap();
        assert!(value["loss"].is_null());
        assert_eq!(value["kl_neg"], 0.5);
        assert_eq!(value["non_finite"][0], "rows.jsonl:3");
        assert!(value.get("sampler_weight").is_none());

        let sampler = Some(SamplerCorrection { sampler_weight: 1.25, sampler_capped: 0.5 });
        for sampler in [sampler, None] {
            let row = TapoMetrics { parts: TapoParts { sampler, ..Default::default() }, ..metrics.clone() };
            let text = serde_json::to_string(&row).unwrap();
            assert_eq!(text.contains(r#""sampler_weight":1.25,"sampler_capped":0.5,"#), sampler.is_some(), "{text}");
            assert_eq!(serde_json::from_str::<TapoMetrics>(&text).unwrap(), row);
        }
    }
}
