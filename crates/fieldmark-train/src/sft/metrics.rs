//! The row that SFT reports after each update: one line of `metrics.jsonl`. A number that is not finite becomes `null`.

use serde::{Deserialize, Serialize};

use super::Validation;

/// Measurements of one SFT update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SftMetrics {
    /// Number of the update, from 1. Skipped updates count.
    pub step: usize,
    /// Epochs of data seen so far, with fraction: above 0, at most `epochs`.
    pub epoch: f64,
    /// Loss of the update: mean of −log π over the tokens in the loss, in nats per token; at least 0.
    pub loss: f64,
    /// Learning rate of the update.
    pub lr: f64,
    /// Global L2 norm of the gradients before clipping; at least 0.
    pub grad_norm: f64,
    /// Number of tokens in the loss of this update.
    pub tokens: usize,
    /// Number of updates skipped so far, this one included, because their loss or gradient was not finite.
    pub skipped: usize,
    /// Trained parts that have had no gradient since the first update, although others have. Absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub idle: Vec<String>,
    /// Names of the samples that made this update's loss or gradient not finite. Absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_finite: Vec<String>,
    /// Loss on the validation set after this update. Absent if the set was not scored.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: usize) -> SftMetrics {
        SftMetrics {
            step,
            epoch: 0.5,
            loss: 1.25,
            lr: 5e-6,
            grad_norm: 0.75,
            tokens: 64,
            skipped: 0,
            idle: Vec::new(),
            non_finite: Vec::new(),
            validation: None,
        }
    }

    #[test]
    fn a_validation_stands_in_the_row_of_its_update() {
        let with = SftMetrics { validation: Some(Validation { loss: 0.5, tokens: 7 }), ..row(1) };
        let text = serde_json::to_string(&with).unwrap();
        assert!(text.ends_with(r#""skipped":0,"val_loss":0.5,"val_tokens":7}"#), "{text}");
        for row in [with, row(1)] {
            let text = serde_json::to_string(&row).unwrap();
            assert_eq!(serde_json::from_str::<SftMetrics>(&text).unwrap(), row);
        }
    }
}
