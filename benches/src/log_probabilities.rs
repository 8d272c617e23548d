//! Log-probabilities of given tokens at the true vocabulary, and their backward pass through the head.

use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    tensor::{Device, Int, Tensor, TensorData},
};
use fieldmark::{stream::RandomStream, train::gradient::ChunkedLogProbs};

/// Tokens of Qwen2.5's vocabulary.
const VOCABULARY: usize = 151_936;
/// States at a time, as in the recipes.
const CHUNK: usize = 1024;

/// A tied head: the transposed embedding, `[vocabulary, width]`.
#[derive(Module, Debug)]
struct Head {
    embedding: Param<Tensor<2>>,
}

impl Head {
    fn logits(&self, hidden_nd: Tensor<2>) -> Tensor<2> {
        hidden_nd.matmul(self.embedding.val().transpose())
    }
}

/// States, their targets and the head.
pub struct LogProbabilities {
    head: Head,
    hidden_nd: Tensor<2>,
    targets_n: Tensor<1, Int>,
}

impl LogProbabilities {
    /// `count` random states of this width.
    pub fn new(count: usize, width: usize, device: &Device) -> Self {
        let device = device.clone().autodiff();
        let normal = |rows: usize, scale: f64| {
            let mut stream = RandomStream::new(0, &["bench", "log-probabilities", &rows.to_string()]);
            let values = (0..rows * width).map(|_| (stream.uniform_in(-1.732, 1.732) * scale) as f32).collect();
            Tensor::<2>::from_data(TensorData::new::<f32, _>(values, [rows, width]), &device)
        };
        let targets = (0..count as i64).map(|n| n * 7919 % VOCABULARY as i64).collect();
        Self {
            head: Head { embedding: Param::from_tensor(normal(VOCABULARY, 0.02)) },
            hidden_nd: normal(count, 1.0),
            targets_n: Tensor::from_data(TensorData::new::<i64, _>(targets, [count]), &device),
        }
    }

    /// The log-probabilities.
    pub fn forward(&self) -> Tensor<1> {
        let Self { head, hidden_nd, targets_n } = self;
        logprobs().forward(hidden_nd, targets_n, |hidden| head.logits(hidden))
    }

    /// The gradients of their mean, with respect to states and head.
    pub fn backward(&self) -> (Tensor<2>, GradientsParams) {
        let Self { head, hidden_nd, targets_n } = self;
        let count = targets_n.dims()[0];
        let grad_n = Tensor::<1>::full([count], 1.0 / count as f64, &hidden_nd.device());
        let found = logprobs().backward(hidden_nd, targets_n, grad_n, head, |hidden| head.logits(hidden));
        (found.hidden_nd, found.params)
    }
}

fn logprobs() -> ChunkedLogProbs {
    ChunkedLogProbs::new(CHUNK, 1.0).expect("valid settings")
}
