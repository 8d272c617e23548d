//! Log-probabilities of given tokens, `log softmax(head(h) / temperature)[target]`, without the logits of all tokens at
//! once. The head runs on one chunk of states at a time. A single tape would keep the logits of every chunk until the
//! backward pass, so [`ChunkedLogProbs`] has two phases: first the values, without a tape; then, with the loss's
//! gradient with respect to the log-probabilities, each chunk again on its own tape. Logits are at least f32. On the CPU
//! in f32, the logits of a chunk are the only tensor of their size: [`logit_rows`] reads them once for the values, and
//! turns them into their gradient where they lie.

use std::ops::Range;

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{
        DType, FloatDType, Gradients, IndexingUpdateOp, Int, Tensor, TensorData,
        activation::{log_softmax, softmax},
    },
};

use fieldmark_model::host::HostTensor;

use super::{
    logit_rows::{self, RowScore},
    seed::{seed, seeded},
    sum::GradientSum,
};
use crate::TrainError;

/// Log-probabilities of the targets, on the tape, for all logits at once. Reference: `logprobs_from_logits`.
///
/// * `logits_nv`: `[N, V]`; half precision is cast to f32.
/// * `targets_n`: `[N]`, ids below V.
///
/// Returns `[N]`.
pub fn token_logprobs(logits_nv: Tensor<2>, targets_n: Tensor<1, Int>, temperature: f64) -> Tensor<1> {
    match HostTensor::of(at_least_f32(logits_nv)) {
        Ok(logits) => host_scores(&logits, targets_n, temperature).logp_n,
        Err(logits_nv) => pick(log_softmax(scaled(logits_nv, temperature), 1), targets_n),
    }
}

/// Log-probabilities of the targets and entropies, without a tape.
fn token_scores(logits_nv: Tensor<2>, targets_n: Tensor<1, Int>, temperature: f64) -> TokenScores {
    match HostTensor::of(at_least_f32(logits_nv)) {
        Ok(logits) => host_scores(&logits, targets_n, temperature),
        Err(logits_nv) => {
            let logp_nv = log_softmax(scaled(logits_nv, temperature), 1);
            let entropy_n = (logp_nv.clone().exp() * logp_nv.clone()).sum_dim(1).neg().squeeze_dim(1);
            TokenScores { logp_n: pick(logp_nv, targets_n), entropy_n }
        }
    }
}

fn host_scores(logits: &HostTensor, targets_n: Tensor<1, Int>, temperature: f64) -> TokenScores {
    let (device, targets) = (targets_n.device(), tokens(targets_n));
    let vocabulary = logits.values().len() / targets.len().max(1);
    let scores = logit_rows::score(logits.values(), vocabulary, &targets, temperature);
    let column = |of: fn(&RowScore) -> f64| {
        let values: Vec<f32> = scores.iter().map(|score| of(score) as f32).collect();
        Tensor::from_data(TensorData::new(values, [scores.len()]), (&device, DType::F32))
    };
    TokenScores { logp_n: column(|score| score.logp), entropy_n: column(|score| score.entropy) }
}

fn tokens(targets_n: Tensor<1, Int>) -> Vec<usize> {
    targets_n.into_data().iter::<i64>().map(|id| id as usize).collect()
}

pub(super) fn at_least_f32(logits_nv: Tensor<2>) -> Tensor<2> {
    match logits_nv.dtype() {
        DType::F16 | DType::BF16 => logits_nv.cast(FloatDType::F32),
        _ => logits_nv,
    }
}

pub(super) fn scaled(logits_nv: Tensor<2>, temperature: f64) -> Tensor<2> {
    if temperature == 1.0 { logits_nv } else { logits_nv / temperature }
}

/// Returns the gradient of `sum(logp · grad_logp)` with respect to the logits, `[N, V]`:
/// `(1[v is the target] − softmax(logits / temperature)) · grad_logp / temperature`. A tape would keep several tensors of
/// this size for it.
fn logit_gradient(
    logits_nv: Tensor<2>,
    targets_n: Tensor<1, Int>,
    grad_logp_n: Tensor<1>,
    temperature: f64,
) -> Tensor<2> {
    let dtype = logits_nv.dtype();
    let grad_nv = match HostTensor::of(at_least_f32(logits_nv)) {
        Ok(mut logits) => {
            let (targets, grads) = (tokens(targets_n), grad_logp_n.cast(DType::F32).into_data());
            let grads = grads.as_slice().expect("the tensor was cast to f32");
            let vocabulary = logits.values().len() / targets.len().max(1);
            logit_rows::differentiate(logits.values_mut(), vocabulary, &targets, grads, temperature);
            logits.into_tensor()
        }
        Err(logits_nv) => {
            let p_nv = softmax(scaled(logits_nv, temperature), 1);
            let grad_n1 = (grad_logp_n.cast(p_nv.dtype()) / temperature).unsqueeze_dim::<2>(1);
            let grad_nv = p_nv * grad_n1.clone().neg();
            grad_nv.scatter(1, targets_n.unsqueeze_dim(1), grad_n1, IndexingUpdateOp::Add)
        }
    };
    grad_nv.cast(dtype)
}

fn pick(logp_nv: Tensor<2>, targets_n: Tensor<1, Int>) -> Tensor<1> {
    logp_nv.gather(1, targets_n.unsqueeze_dim(1)).squeeze_dim(1)
}

/// Log-probabilities, and the entropies of the distributions.
pub struct TokenScores {
    /// Log-probability of each target. `[N]`.
    pub logp_n: Tensor<1>,
    /// `-sum p log p` over the vocabulary, in nats. `[N]`.
    pub entropy_n: Tensor<1>,
}

/// Gradients from the backward pass of the head.
pub struct HeadGradients {
    /// Gradient with respect to the states, for [`backward_states`]. `[N, D]`, without a tape.
    pub hidden_nd: Tensor<2>,
    /// Gradients of the parameters that the head uses.
    pub params: GradientsParams,
}

/// Computes log-probabilities in chunks of `chunk` states, in two phases.
///
/// Peak memory is a few `[chunk, V]` tensors instead of `[N, V]`. The cost is one more pass through the head.
///
/// ```
/// use burn::{module::Module, nn::LinearConfig, optim::GradientsParams};
/// use burn::tensor::{Device, Distribution, Int, Tensor};
/// use fieldmark_train::gradient::{ChunkedLogProbs, GradientSum, backward_states};
///
/// # let device = Device::flex().autodiff();
/// # let trunk = LinearConfig::new(4, 8).init(&device);
/// # let head = LinearConfig::new(8, 32).with_bias(false).init(&device);
/// # let module = (trunk.clone(), head.clone());
/// # let x = Tensor::<2>::random([6, 4], Distribution::Default, &device);
/// # let targets = Tensor::<1, Int>::from_ints([3, 1, 4, 1, 5, 9], &device);
/// let logprobs = ChunkedLogProbs::new(2, 1.0)?;
/// let hidden = trunk.forward(x);
/// let logp = logprobs.forward(&hidden, &targets, |h| head.forward(h));
///
/// // The log-probabilities are the leaves of the loss.
/// let logp = logp.autodiff().require_grad();
/// let loss = logp.clone().mean().neg();
/// let grad = logp.grad(&loss.backward()).unwrap();
///
/// let by_head = logprobs.backward(&hidden, &targets, grad, &module, |h| head.forward(h));
/// let mut by_trunk = backward_states(hidden, by_head.hidden_nd);
/// let mut total = GradientSum::new();
/// total.add(&module, by_head.params);
/// total.add(&module, GradientsParams::from_module(&mut by_trunk, &module));
/// assert_eq!(total.into_grads().len(), 3);
/// # Ok::<(), fieldmark_train::TrainError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChunkedLogProbs {
    chunk: usize,
    temperature: f64,
}

impl ChunkedLogProbs {
    /// Processes `chunk` states at a time and divides logits by `temperature`.
    ///
    /// # Errors
    /// Returns an error if `chunk` is 0, or `temperature` is not positive and finite.
    pub fn new(chunk: usize, temperature: f64) -> Result<Self, TrainError> {
        if chunk == 0 {
            return Err(TrainError::Setting { key: "logit_chunk", value: "0".into(), expected: "at least 1" });
        }
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(TrainError::Setting {
                key: "temperature",
                value: temperature.to_string(),
                expected: "a positive number",
            });
        }
        Ok(Self { chunk, temperature })
    }

    /// First phase: returns the log-probabilities `[N]`, without a tape.
    ///
    /// * `hidden_nd`: states that predict the targets, `[N, D]`, N at least 1.
    /// * `targets_n`: `[N]`.
    /// * `head`: maps `[n, D]` to logits `[n, V]`.
    pub fn forward(
        &self,
        hidden_nd: &Tensor<2>,
        targets_n: &Tensor<1, Int>,
        head: impl Fn(Tensor<2>) -> Tensor<2>,
    ) -> Tensor<1> {
        let hidden_nd = hidden_nd.clone().inner();
        let chunks = self.ranges(hidden_nd.dims()[0]).map(|range| {
            let logits_nv = head(hidden_nd.clone().slice([range.clone()])).inner();
            token_logprobs(logits_nv, targets_n.clone().inner().slice([range]), self.temperature)
        });
        Tensor::cat(chunks.collect(), 0)
    }

    /// Like [`Self::forward`], and also returns the entropy of each distribution, for metrics.
    pub fn forward_with_entropy(
        &self,
        hidden_nd: &Tensor<2>,
        targets_n: &Tensor<1, Int>,
        head: impl Fn(Tensor<2>) -> Tensor<2>,
    ) -> TokenScores {
        let hidden_nd = hidden_nd.clone().inner();
        let (logp, entropy): (Vec<_>, Vec<_>) = self
            .ranges(hidden_nd.dims()[0])
            .map(|range| {
                let logits_nv = head(hidden_nd.clone().slice([range.clone()])).inner();
                let targets_n = targets_n.clone().inner().slice([range]);
                let TokenScores { logp_n, entropy_n } = token_scores(logits_nv, targets_n, self.temperature);
                (logp_n, entropy_n)
            })
            .unzip();
        TokenScores { logp_n: Tensor::cat(logp, 0), entropy_n: Tensor::cat(entropy, 0) }
    }

    /// Second phase: returns the gradients of `sum(logp * grad_logp)`, where `grad_logp` is the loss's gradient with
    /// respect to the log-probabilities of the first phase.
    ///
    /// * `grad_logp_n`: `[N]`, a constant.
    /// * `module`: holds the parameters whose gradients are wanted, including the head's (and a tied embedding).
    ///
    /// This does not touch the tape of the states: pass the result to [`backward_states`].
    pub fn backward<M: Module>(
        &self,
        hidden_nd: &Tensor<2>,
        targets_n: &Tensor<1, Int>,
        grad_logp_n: Tensor<1>,
        module: &M,
        head: impl Fn(Tensor<2>) -> Tensor<2>,
    ) -> HeadGradients {
        let constant_nd = hidden_nd.clone().autodiff().detach();
        let grad_logp_n = grad_logp_n.inner();
        let mut params = GradientSum::new();
        let mut hidden = Vec::new();
        for range in self.ranges(constant_nd.dims()[0]) {
            let leaf_nd = constant_nd.clone().slice([range.clone()]).detach().require_grad();
            let logits_nv = head(leaf_nd.clone());
            let targets_n = targets_n.clone().inner().slice([range.clone()]);
            let grad_n = grad_logp_n.clone().slice([range]);
            let gradient = |logits_nv| logit_gradient(logits_nv, targets_n, grad_n, self.temperature);
            let mut grads = seed(logits_nv, gradient).backward();
            let leaf_grad_nd = leaf_nd.grad_remove(&mut grads);
            hidden.push(leaf_grad_nd.unwrap_or_else(|| leaf_nd.inner().zeros_like()));
            params.add(module, GradientsParams::from_module(&mut grads, module));
        }
        HeadGradients { hidden_nd: Tensor::cat(hidden, 0), params: params.into_grads() }
    }

    /// What the logits are divided by.
    pub(super) fn temperature(&self) -> f64 {
        self.temperature
    }

    /// The same with chunks of a quarter of the states.
    pub(super) fn quarter(&self) -> Self {
        Self { chunk: self.chunk.div_ceil(4), ..*self }
    }

    pub(super) fn ranges(&self, n: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let chunk = self.chunk;
        (0..n).step_by(chunk).map(move |start| start..n.min(start + chunk))
    }
}

/// Runs the backward pass of the network that made the states, with the gradient of the states: the gradients of
/// `sum(hidden * grad)`. Both are `[N, D]`.
///
/// `hidden_nd` must be on a tape, so do not call this if everything before the head is frozen.
pub fn backward_states(hidden_nd: Tensor<2>, grad_nd: Tensor<2>) -> Gradients {
    seeded(hidden_nd, grad_nd.inner())
}
