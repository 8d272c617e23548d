//! What the clock says of a run, one JSON object a line in `timings.jsonl`, beside the metrics that are the same in every
//! run. `part` tells the rows of updates from those of rollouts.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
}

impl UpdateTiming {
    /// The timing of update `step` over sequences of `tokens` tokens.
    pub fn new(step: usize, rollout_step: Option<usize>, tokens: usize, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        Self { step, rollout_step, tokens, seconds, tokens_per_second: tokens as f64 / seconds }
    }
}

/// How long the rollouts of one step took: prompts, decoding, rewards and old log-probabilities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "part", rename = "rollouts")]
pub struct RolloutTiming {
    /// Update after which they were drawn.
    pub step: usize,
    /// Rollout step, from 1.
    pub rollout_step: usize,
    /// Tokens decoded.
    pub tokens: usize,
    /// Wall time, seconds.
    pub seconds: f64,
    /// `tokens / seconds`.
    pub tokens_per_second: f64,
}

impl RolloutTiming {
    /// The timing of `tokens` new tokens in rollout step `rollout_step`.
    pub fn new(step: usize, rollout_step: usize, tokens: usize, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        Self { step, rollout_step, tokens, seconds, tokens_per_second: tokens as f64 / seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_what_they_time() {
        let second = Duration::from_millis(500);
        let update = serde_json::to_value(UpdateTiming::new(3, None, 10, second)).unwrap();
        let expected =
            serde_json::json!({ "part": "update", "step": 3, "tokens": 10, "seconds": 0.5, "tokens_per_second": 20.0 });
        assert_eq!(update, expected);
        let rollouts = serde_json::to_value(RolloutTiming::new(3, 2, 10, second)).unwrap();
        assert_eq!((rollouts["part"].as_str(), rollouts["rollout_step"].as_u64()), (Some("rollouts"), Some(2)));
    }
}
