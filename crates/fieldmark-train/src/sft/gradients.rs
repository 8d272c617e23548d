//! Loss and gradients of one SFT update, from its micro-batches.

use fieldmark_model::Qwen25Vl;

use super::{sft_loss, sft_loss_grad};
use crate::{
    TrainError,
    gradient::{BatchSize, LossNorm, MicroBatch, Scorer},
    parallel::{Replicas, sum_on_replicas},
};

/// Loss and gradients of one update, before the optimiser's step.
pub struct SftGradients {
    /// The update's loss.
    pub loss: f64,
    /// The tokens and sequences that the loss is a mean over.
    pub size: BatchSize,
    /// Gradients of every trainable parameter.
    pub grads: burn::optim::GradientsParams,
}

/// Computes loss and gradients of one accumulated batch. Each of `replicas` works on one micro-batch at a time.
///
/// # Errors
/// Returns an error if a sample does not fit the model or has no token in the loss.
pub fn sft_gradients(
    model: &Qwen25Vl,
    scorer: &Scorer,
    micros: &[MicroBatch],
    norm: LossNorm,
    replicas: &Replicas,
) -> Result<SftGradients, TrainError> {
    let size = micros.iter().fold(BatchSize { tokens: 0, sequences: 0 }, |sum, micro| BatchSize {
        tokens: sum.tokens + micro.size().tokens,
        sequences: sum.sequences + micro.size().sequences,
    });
    let (losses, grads) = sum_on_replicas(model, micros, replicas, |model, micro, device, sum| {
        let normaliser = norm.normaliser(size, micro.size(), micros.len());
        let scored = scorer.forward(model, micro, device)?;
        let loss = sft_loss(scored.logp_n.clone(), &normaliser).into_scalar::<f64>();
        let grad = sft_loss_grad(&scored.logp_n, &normaliser);
        scorer.backward(model, scored, grad, sum);
        Ok(loss)
    })?;
    Ok(SftGradients { loss: losses.iter().sum(), size, grads })
}
