//! The SFT loss: cross entropy `-sum log p(token)` over the assistant's tokens, divided by the number of these tokens
//! in the accumulated batch (`loss_norm = "batch"`) or in the micro-batch (`"micro"`). The released code does the
//! latter, because LLaMA-Factory turns off the Trainer's token mean for models with a processor.

use burn::tensor::Tensor;

use crate::gradient::Normaliser;

/// Sums −log π of the tokens in the loss. `logp_n`: `[N]`; result: `[1]`.
pub fn cross_entropy_sum(logp_n: Tensor<1>) -> Tensor<1> {
    logp_n.sum().neg()
}

/// Share of one micro-batch in the update's loss, which is the sum of these shares. Result: `[1]`.
///
/// `logp_n`, `[N]`, holds log π of the tokens in the loss and of no others (see [`crate::gradient::TokenPacking`]).
pub fn sft_loss(logp_n: Tensor<1>, normaliser: &Normaliser) -> Tensor<1> {
    cross_entropy_sum(logp_n) * normaliser.token_factor()
}

/// Gradient of [`sft_loss`] with respect to `logp_n`: a constant, in the form that
/// [`ChunkedLogProbs::backward`](crate::gradient::ChunkedLogProbs::backward) takes.
pub fn sft_loss_grad(logp_n: &Tensor<1>, normaliser: &Normaliser) -> Tensor<1> {
    logp_n.clone().inner().ones_like() * -normaliser.token_factor()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradient::{BatchSize, LossNorm};
    use burn::tensor::Device;

    #[test]
    fn accumulated_loss_and_gradient_are_the_whole_batchs() {
        let device = Device::default().autodiff();
        let logp = [-0.5f32, -1.5, -0.25, -3.0, -0.75];
        let update = BatchSize { tokens: 5, sequences: 2 };
        let mut total = 0.0;
        for part in [&logp[..1], &logp[1..]] {
            let micro = BatchSize { tokens: part.len(), sequences: 1 };
            let normaliser = LossNorm::Batch.normaliser(update, micro, 2);
            let x = Tensor::<1>::from_floats(part, &device).require_grad();
            let loss = sft_loss(x.clone(), &normaliser);
            total += loss.clone().into_scalar::<f32>();
            let grad = x.grad(&loss.backward()).unwrap();
            let direct = sft_loss_grad(&x, &normaliser);
            assert!((grad - direct.clone()).abs().max().into_scalar::<f32>() < 1e-7);
            assert!((direct + 0.2).abs().max().into_scalar::<f32>() < 1e-6);
        }
        assert!((total - 6.0 / 5.0).abs() < 1e-6);
        let micro = LossNorm::Micro.normaliser(update, BatchSize { tokens: 1, sequences: 1 }, 2);
        let loss = sft_loss(Tensor::from_floats([-0.5], &device), &micro).into_scalar::<f32>();
        assert!((loss - 0.25).abs() < 1e-6);
    }
}
