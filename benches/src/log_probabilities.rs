//! Log-probabilities of given tokens at the true vocabulary, and their backward pass through a tied head.

use burn::{
    optim::GradientsParams,
    tensor::{Device, Int, Tensor, TensorData},
};
use fieldmark::{model::Qwen25Vl, stream::RandomStream, train::gradient::ChunkedLogProbs};

use crate::rollouts::vocabulary_model;

/// States at a time, as in the recipes.
const CHUNK: usize = 1024;

/// States, their targets and the model whose head maps them to logits.
pub struct LogProbabilities {
    model: Qwen25Vl,
    hidden_nd: Tensor<2>,
    targets_n: Tensor<1, Int>,
}

impl LogProbabilities {
    /// `count` random states of this width.
    pub fn new(count: usize, width: usize, device: &Device) -> Self {
        let device = device.clone().autodiff();
        let mut stream = RandomStream::new(0, &["bench", "log-probabilities"]);
        let states: Vec<f32> = (0..count * width).map(|_| stream.uniform_in(-1.732, 1.732) as f32).collect();
        let targets: Vec<i64> = (0..count as i64).map(|n| n * 7919 % 151_936).collect();
        Self {
            model: vocabulary_model(width, &device),
            hidden_nd: Tensor::from_data(TensorData::new(states, [count, width]), &device),
            targets_n: Tensor::from_data(TensorData::new(targets, [count]), &device),
        }
    }

    /// The log-probabilities.
    pub fn forward(&self) -> Tensor<1> {
        let Self { model, hidden_nd, targets_n } = self;
        logprobs().forward(hidden_nd, targets_n, |hidden| model.logits(hidden))
    }

    /// The gradients of their mean, with respect to states and head.
    pub fn backward(&self) -> (Tensor<2>, GradientsParams) {
        let Self { model, hidden_nd, targets_n } = self;
        let count = targets_n.dims()[0];
        let grad_n = Tensor::<1>::full([count], 1.0 / count as f64, &hidden_nd.device());
        let found = logprobs().backward(hidden_nd, targets_n, grad_n, model, |hidden| model.logits(hidden));
        (found.hidden_nd, found.params)
    }
}

fn logprobs() -> ChunkedLogProbs {
    ChunkedLogProbs::new(CHUNK, 1.0).expect("valid settings")
}
