//! Tests of log-probabilities in chunks: values and gradients are those of a single tape.

use burn::{
    module::{Module, Param},
    optim::GradientsParams,
    tensor::{DType, Device, Int, Tensor, TensorData},
};

use super::{
    logprob::{ChunkedLogProbs, backward_states, token_logprobs},
    sum::GradientSum,
};

/// A stand-in for a tied model: the trunk looks up and mixes the table that is also the head.
#[derive(Module, Debug)]
struct Tied {
    table: Param<Tensor<2>>,
    mix: Param<Tensor<2>>,
}

const VOCABULARY: usize = 23;

impl Tied {
    fn new(device: &Device, dtype: DType) -> Self {
        let filled = |shape: [usize; 2]| {
            let values = (0..shape[0] * shape[1]).map(|i| (1.7 * i as f64 * i as f64).sin()).collect();
            let data = TensorData::new::<f64, _>(values, shape);
            Param::from_tensor(Tensor::from_data(data, (device, dtype)))
        };
        Self { table: filled([VOCABULARY, 6]), mix: filled([6, 6]) }
    }

    fn hidden(&self, ids: &Tensor<1, Int>) -> Tensor<2> {
        self.table.val().select(0, ids.clone()).matmul(self.mix.val()).tanh()
    }

    fn head(&self, hidden_nd: Tensor<2>) -> Tensor<2> {
        hidden_nd.matmul(self.table.val().transpose())
    }
}

struct Case {
    model: Tied,
    ids: Tensor<1, Int>,
    targets: Tensor<1, Int>,
}

fn case() -> Case {
    case_in(DType::F64)
}

fn case_in(dtype: DType) -> Case {
    let device = Device::default().autodiff();
    Case {
        model: Tied::new(&device, dtype),
        ids: Tensor::from_ints([3, 1, 4, 1, 5, 9, 2], &device),
        targets: Tensor::from_ints([6, 5, 3, 5, 22, 0, 9], &device),
    }
}

/// Some loss of the log-probabilities that weighs each differently.
fn loss(logp_n: Tensor<1>) -> Tensor<1> {
    (logp_n.clone().exp() * 2.0 + logp_n.square() * 0.3).mean()
}

fn relative<const D: usize>(found: Tensor<D>, expected: Tensor<D>) -> f64 {
    let scale: f64 = expected.clone().abs().max().into_scalar();
    (found.cast(DType::F64) - expected).abs().max().into_scalar::<f64>() / scale
}

fn grads_of(model: &Tied, grads: &GradientsParams) -> (Tensor<2>, Tensor<2>) {
    (grads.get(model.table.id).unwrap(), grads.get(model.mix.id).unwrap())
}

#[test]
fn two_phases_give_the_gradient_of_one_tape() {
    // On the CPU, f32 takes a way of its own.
    for (dtype, bound) in [(DType::F64, 1e-12), (DType::F32, 1e-5)] {
        for temperature in [1.0, 0.7] {
            compare_with_one_tape(dtype, temperature, bound);
        }
    }
}

/// Compares values and gradients in this type with those of a single tape in f64.
fn compare_with_one_tape(dtype: DType, temperature: f64, bound: f64) {
    let Case { model, ids, targets } = case();
    // A tensor, because autodiff divides by a number in f32.
    let data = TensorData::new(vec![temperature], [1, 1]);
    let by = Tensor::<2>::from_data(data, (&ids.device(), DType::F64));
    let naive = token_logprobs(model.head(model.hidden(&ids)) / by, targets.clone(), 1.0);
    let values = naive.clone().inner();
    let naive = GradientsParams::from_grads(loss(naive).backward(), &model);
    let (table, mix) = grads_of(&model, &naive);
    let model = case_in(dtype).model;
    for chunk in [1, 3, 7, 100] {
        let chunked = ChunkedLogProbs::new(chunk, temperature).unwrap();
        let hidden = model.hidden(&ids);
        let logp = chunked.forward(&hidden, &targets, |h| model.head(h));
        assert!(!logp.is_autodiff() && logp.dtype() == dtype);
        assert!(relative(logp.clone(), values.clone()) < bound);

        let leaf = logp.autodiff().require_grad();
        let grad_logp = leaf.grad(&loss(leaf.clone()).backward()).unwrap();
        let head = chunked.backward(&hidden, &targets, grad_logp, &model, |h| model.head(h));
        let mut trunk = backward_states(hidden, head.hidden_nd);
        let mut total = GradientSum::new();
        total.add(&model, head.params);
        total.add(&model, GradientsParams::from_module(&mut trunk, &model));
        let (found_table, found_mix) = grads_of(&model, &total.into_grads());
        assert!(relative(found_table, table.clone()) < bound, "{dtype:?} chunk {chunk}");
        assert!(relative(found_mix, mix.clone()) < bound, "{dtype:?} chunk {chunk}");
    }
}

#[test]
fn the_gradient_is_that_of_finite_differences() {
    let Case { model, ids, targets } = case();
    let chunked = ChunkedLogProbs::new(2, 0.7).unwrap();
    let hidden = model.hidden(&ids).inner();
    let ones = hidden.clone().slice([0..7, 0..1]).squeeze_dim::<1>(1).ones_like();
    let head = chunked.backward(&hidden, &targets, ones, &model, |h| model.head(h));
    let grad: Vec<f64> = head.hidden_nd.into_data().iter().collect();
    let sum = |hidden: Tensor<2>| -> f64 { chunked.forward(&hidden, &targets, |h| model.head(h)).sum().into_scalar() };
    let step = 1e-5;
    for (n, d) in [(0, 0), (3, 2), (6, 5)] {
        let bump = |by: f64| {
            let cell = hidden.clone().slice([n..n + 1, d..d + 1]) + by;
            sum(hidden.clone().slice_assign([n..n + 1, d..d + 1], cell))
        };
        let slope = (bump(step) - bump(-step)) / (2.0 * step);
        assert!((slope - grad[n * 6 + d]).abs() < 1e-9, "{slope} {}", grad[n * 6 + d]);
    }
}

#[test]
fn entropy_is_that_of_the_distribution() {
    let Case { model, ids, targets } = case();
    let chunked = ChunkedLogProbs::new(2, 0.7).unwrap();
    let hidden = model.hidden(&ids);
    let scores = chunked.forward_with_entropy(&hidden, &targets, |h| model.head(h));
    let plain = chunked.forward(&hidden, &targets, |h| model.head(h));
    assert!(relative(scores.logp_n, plain) < 1e-12);
    let logits: Vec<f64> = model.head(hidden).into_data().iter().collect();
    let found: Vec<f64> = scores.entropy_n.into_data().iter().collect();
    for (row, found) in logits.chunks(VOCABULARY).zip(found) {
        let weights: Vec<f64> = row.iter().map(|x| (x / 0.7).exp()).collect();
        let total: f64 = weights.iter().sum();
        let entropy: f64 = weights.iter().map(|w| -(w / total) * (w / total).ln()).sum();
        assert!((entropy - found).abs() < 1e-10);
    }
}

#[test]
fn large_logits_stay_finite() {
    let logits = Tensor::<2>::from_floats([[1e4, -1e4, 0.0]], &Device::default());
    let at = |id: i64| {
        let target = Tensor::from_ints([id], &Device::default());
        token_logprobs(logits.clone(), target, 1.0).into_scalar::<f32>()
    };
    assert_eq!([at(0), at(1), at(2)], [0.0, -2e4, -1e4]);
}

#[test]
fn settings_are_checked() {
    assert!(ChunkedLogProbs::new(0, 1.0).is_err());
    assert!(ChunkedLogProbs::new(1, 0.0).is_err());
    assert!(ChunkedLogProbs::new(1, f64::NAN).is_err());
}
