//! Times of a run: the rows of `timings.jsonl`, one JSON object per line. They are kept apart from the metrics because
//! they differ between two runs of the same recipe. `part` is `update`, `rollouts` or `validation`.

use std::time::Duration;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use crate::memory::peak_memory;

/// The time of one update: from making its samples to the new parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "part", rename = "update")]
pub struct UpdateTiming {
    /// Number of the update, from 1.
    pub step: usize,
    /// Rollout step of the update, from 1. Absent in SFT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_step: Option<usize>,
    /// Number of tokens in the sequences of the update: prompts, images and answers.
    pub tokens: usize,
    /// Wall time in seconds, without the validation.
    pub seconds: f64,
    /// `tokens / seconds`.
    pub tokens_per_second: f64,
    /// Number of floating-point operations that forward and backward pass need ([`fieldmark_model::Flops`]).
    pub flops: f64,
    /// Model FLOPs utilisation: `flops / seconds` divided by the peak of the devices, from 0 to 1. Absent if the peak
    /// is not known. Work repeated to save memory (`recompute`) does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// Largest amount of memory that the device has used so far, in bytes. Absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
    /// Wall time in seconds of the validation after the update (SFT). Absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_seconds: Option<f64>,
}

impl UpdateTiming {
    /// Creates the timing of update `step`, whose sequences have `tokens` tokens and need `flops` operations.
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

    /// Sets the time of the validation after the update.
    pub fn with_validation(self, time: Duration) -> Self {
        Self { validation_seconds: Some(time.as_secs_f64()), ..self }
    }

    /// Adds the peak memory of `device`, and the utilisation if `peak_tflops`, the peak in 10¹² operations per second,
    /// is known.
    pub fn on(self, device: &Device, peak_tflops: Option<f64>) -> Self {
        let mfu = peak_tflops.map(|peak| self.flops / self.seconds / (peak * 1e12));
        Self { mfu, peak_memory: peak_memory(device), ..self }
    }
}

/// The purpose of decoded responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decoding {
    /// The rollouts of a step. The time covers prompts, decoding, rewards and old log-probabilities.
    Rollouts,
    /// The answers to a validation set. The time covers prompts, decoding and rewards.
    Validation,
}

/// The time of decoding responses (TAPO).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecodingTiming {
    /// `rollouts` or `validation`.
    pub part: Decoding,
    /// Number of updates made before.
    pub step: usize,
    /// Rollouts: the rollout step, from 1. Validation: the number of rollout steps made before.
    pub rollout_step: usize,
    /// Number of decoded tokens.
    pub tokens: usize,
    /// Wall time in seconds.
    pub seconds: f64,
    /// `tokens / seconds`.
    pub tokens_per_second: f64,
}

impl DecodingTiming {
    /// Creates the timing of `tokens` new tokens after `step` updates.
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
