//! The row that SFT reports after each update.

use serde::{Deserialize, Serialize};

use super::Validation;

/// Measurements of one SFT update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SftMetrics {
    /// Update, from 1.
    pub step: usize,
    /// Epochs of data seen, with fraction.
    pub epoch: f64,
    /// Mean loss of the update, nats a token.
    pub loss: f64,
    /// Learning rate used.
    pub lr: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens in the loss.
    pub tokens: usize,
    /// Updates skipped so far for a loss or gradient that was not finite.
    pub skipped: usize,
    /// Samples to which this update's loss or gradient owes that it is not finite; empty where it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_finite: Vec<String>,
    /// What the validation set says of the model after this update; absent where it was not asked.
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
