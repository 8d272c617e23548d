//! The loss on held-out rows: the mean of −log π(token) over all their tokens in the loss, computed without gradients.
//!
//! Reference: `eval_loss` of transformers' `Trainer`, which is a mean of batch means. Here it is one token mean.

use fieldmark_model::Qwen25Vl;
use serde::{Deserialize, Serialize};

use super::{SftConfig, SftSource};
use crate::{
    TrainError,
    gradient::{MicroBatch, Scorer, micro_batches},
    parallel::{Replicas, on_replicas},
    trainer::Interrupt,
};

/// The loss of a model on a validation set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean of −log π over the tokens in the loss, in nats per token; at least 0.
    #[serde(rename = "val_loss")]
    pub loss: f64,
    /// Number of tokens in the loss.
    #[serde(rename = "val_tokens")]
    pub tokens: usize,
}

/// Computes the loss on the rows of `source` in epoch 0. `model` and `replicas` must not track gradients. Uses no more
/// memory than an update. Without rows, the loss is NaN. Returns `None` if `stop` is set before the last batch.
///
/// # Errors
/// Returns an error if a sample cannot be made or does not fit the model.
pub fn validate_sft(
    model: &Qwen25Vl,
    scorer: &Scorer,
    source: &impl SftSource,
    config: &SftConfig,
    replicas: &Replicas,
    stop: &Interrupt,
) -> Result<Option<Validation>, TrainError> {
    let (mut sum, mut tokens) = (0.0, 0);
    let rows: Vec<usize> = (0..source.len()).collect();
    for rows in rows.chunks(config.batch) {
        if stop.asked() {
            return Ok(None);
        }
        let samples = rows.iter().map(|&row| source.sample(row, 0)).collect::<Result<Vec<_>, _>>()?;
        let cuts = micro_batches(samples.len(), config.micro_batch, config.micro_tokens, |range| {
            samples[range].iter().map(|sample| sample.sequence.ids.len()).sum()
        });
        let mut samples = samples.into_iter();
        let micros: Vec<MicroBatch> = cuts
            .iter()
            .map(|cut| scorer.micro_batch(samples.by_ref().take(cut.len()).collect()))
            .collect::<Result<_, _>>()?;
        let losses = on_replicas(model, &micros, replicas, |model, micro, device| {
            let logp_n = scorer.forward(model, micro, device)?.logp_n;
            Ok(-logp_n.into_data().iter::<f64>().sum::<f64>())
        })?;
        sum += losses.iter().sum::<f64>();
        tokens += micros.iter().map(|micro| micro.size().tokens).sum::<usize>();
    }
    Ok(Some(Validation { loss: sum / tokens as f64, tokens }))
}

impl SftConfig {
    /// Returns true if the validation set is scored after update `done` of a run over `rows` rows.
    pub(super) fn validates(&self, done: usize, rows: usize) -> bool {
        let every = self.eval_every.unwrap_or(rows.div_ceil(self.batch));
        done == self.updates(rows) || (every > 0 && done.is_multiple_of(every))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_scored_every_so_often_and_at_the_end() {
        let due = |eval_every| {
            let config = SftConfig { epochs: 2, batch: 2, eval_every, ..SftConfig::default() };
            (1..=8).filter(|&done| config.validates(done, 7)).collect::<Vec<_>>()
        };
        assert_eq!(due(None), [4, 8]);
        assert_eq!(due(Some(0)), [8]);
        assert_eq!(due(Some(1)), [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(due(Some(3)), [3, 6, 8]);
    }
}
