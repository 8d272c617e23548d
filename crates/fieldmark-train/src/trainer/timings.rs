//! What the clock says of a run, one JSON object a line in `timings.jsonl`, beside the metrics that are the same in every
//! run. `part` tells the rows of updates from those of rollouts.

use std::time::Duration;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::memory::peak_memory;

/// How long one update took: from its samples to the new parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "part", rename = "update")]
pub struct UpdateTiming {
    /// Update, from 1.
    pub step: usize,
    /// Rollout step it belongs to, from 1 (TAPO).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_step: Option<usize>,
    /// Tokens of its sequences: prompts, images and answers.
    pub tokens: usize,
    /// Wall time, seconds.
    pub seconds: f64,
    /// `tokens / seconds`.
    pub tokens_per_second: f64,
    /// Floating-point operations that it needs, forward and backward ([`fieldmark_model::Flops`]).
    pub flops: f64,
    /// Model FLOPs utilisation: `flops / seconds` as a share of the device's peak, where that is known. What is computed
    /// twice to save memory does not raise it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Most memory that the device has used so far, bytes, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// Wall time of the validation after it, seconds, where there was one. No other figure counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_seconds: Option<f64>,
}

impl UpdateTiming {
    /// The timing of update `step` over sequences of `tokens` tokens, which need `flops` operations.
    pub fn new(step: usize, rollout_step: Option<usize>, tokens: usize, flops: f64, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        let tokens_per_second = tokens as f64 / seconds;
        Self {
            step,
            rollout_step,
            tokens,
            seconds,
            tokens_per_second,
            flops,
            mfu: None,
            peak_memory: None,
            validation_seconds: None,
        }
    }

    /// The same with a validation after it.
    pub fn with_validation(self, time: Duration) -> Self {
        Self { validation_seconds: Some(time.as_secs_f64()), ..self }
    }

    /// The same with what the device adds: its memory, and its use if it has a peak of `peak_tflops` 10¹² operations a
    /// second.
    pub fn on(self, device: &Device, peak_tflops: Option<f64>) -> Self {
        let mfu = peak_tflops.map(|peak| self.flops / self.seconds / (peak * 1e12));
        Self { mfu, peak_memory: peak_memory(device), ..self }
    }
}

/// What responses were decoded for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decoding {
    /// The rollouts of a step: prompts, decoding, rewards and old log-probabilities.
    Rollouts,
    /// The answers to a validation set: prompts, decoding and rewards.
    Validation,
}

/// How long it took to decode responses (TAPO).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecodingTiming {
    /// What for.
    pub part: Decoding,
    /// Updates made before.
    pub step: usize,
    /// The rollout step that they are for, from 1; of a validation, the steps made before.
    pub rollout_step: usize,
    /// Tokens decoded.
    pub tokens: usize,
    /// Wall time, seconds.
    pub seconds: f64,
    /// `tokens / seconds`.
    pub tokens_per_second: f64,
}

impl DecodingTiming {
    /// The timing of `tokens` new tokens after `step` updates.
    pub fn new(part: Decoding, step: usize, rollout_step: usize, tokens: usize, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        Self { part, step, rollout_step, tokens, seconds, tokens_per_second: tokens as f64 / seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_what_they_time() {
        let second = Duration::from_millis(500);
        let update = serde_json::to_value(UpdateTiming::new(3, None, 10, 1e12, second)).unwrap();
        let expected = serde_json::json!({
            "part": "update", "step": 3, "tokens": 10, "seconds": 0.5, "tokens_per_second": 20.0, "flops": 1e12,
        });
        assert_eq!(update, expected);
        for (part, name) in [(Decoding::Rollouts, "rollouts"), (Decoding::Validation, "validation")] {
            let timing = serde_json::to_value(DecodingTiming::new(part, 3, 2, 10, second)).unwrap();
            let expected = serde_json::json!({
                "part": name, "step": 3, "rollout_step": 2, "tokens": 10, "seconds": 0.5, "tokens_per_second": 20.0,
            });
            assert_eq!(timing, expected);
        }
    }

    #[test]
    fn utilisation_is_a_share_of_a_known_peak() {
        let device = Device::default();
        let timing = UpdateTiming::new(1, None, 10, 3e12, Duration::from_secs(2));
        assert_eq!(timing.clone().on(&device, Some(10.0)).mfu, Some(0.15));
        assert_eq!(timing.on(&device, None).mfu, None);
    }
}
