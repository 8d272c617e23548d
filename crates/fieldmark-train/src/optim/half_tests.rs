//! Tests of AdamW on 16-bit weights, through the settings.

use burn::{
    module::{Module, Param},
    optim::{AdamWConfig, GradientsParams, ModuleOptimizer, Optimizer, RecordState, StateSink},
    tensor::{DType, Device, Tensor, TensorData},
};
use half::bf16;

use super::{
    AdamWSettings, HalfWeights, Moments,
    adamw_half::{PreciseAdamW, PreciseState},
    host_step::Rates,
};
use crate::params::stable_param_ids;

/// A matrix and a bias of one number each.
#[derive(Module, Debug)]
struct Numbers {
    matrix: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Numbers {
    fn new(start: f32, dtype: DType) -> Self {
        let device = Device::default().autodiff();
        stable_param_ids(Self {
            matrix: Param::from_tensor(Tensor::full([1, 1], start, (&device, dtype))),
            bias: Param::from_tensor(Tensor::full([1], start, (&device, dtype))),
        })
    }

    /// Both numbers after a step for each of `grads`.
    fn step(mut self, optimizer: &mut ModuleOptimizer, lr: f64, grads: &[f64]) -> Self {
        let device = Device::default();
        for &grad in grads {
            let mut params = GradientsParams::new();
            params.register(self.matrix.id, Tensor::<2>::full([1, 1], grad, &device));
            params.register(self.bias.id, Tensor::<1>::full([1], grad, &device));
            self = optimizer.step(lr, self, params);
        }
        self
    }

    fn values(&self) -> [f64; 2] {
        [self.matrix.val().into_scalar(), self.bias.val().into_scalar()]
    }
}

fn settings(half: HalfWeights, moments: Moments) -> AdamWSettings {
    AdamWSettings { half, moments, weight_decay: 0.0, ..AdamWSettings::default() }
}

fn after(half: HalfWeights, start: f32, lr: f64, grads: &[f64]) -> [f64; 2] {
    let numbers = Numbers::new(start, DType::BF16);
    let mut optimizer = settings(half, Moments::F32).init(&numbers).unwrap();
    let numbers = numbers.step(&mut optimizer, lr, grads);
    assert_eq!(numbers.matrix.dtype(), DType::BF16);
    numbers.values()
}

/// AdamW without decay in f64; `store` is what the moments go through between steps.
fn closed_form(mut p: f64, lr: f64, grads: &[f64], store: impl Fn(f64) -> f64) -> f64 {
    let (mut m, mut v) = (0.0, 0.0);
    for (t, g) in (1..).zip(grads) {
        m = 0.9 * m + 0.1 * g;
        v = 0.999 * v + 0.001 * g * g;
        p -= lr / (1.0 - 0.9f64.powi(t)) * m / ((v / (1.0 - 0.999f64.powi(t))).sqrt() + 1e-8);
        (m, v) = (store(m), store(v));
    }
    p
}

fn wavering(steps: u32) -> Vec<f64> {
    (0..steps).map(|i| 0.01 * (1.0 + 0.7 * (1.7 * f64::from(i)).sin())).collect()
}

#[test]
fn f32_weights_step_as_with_burns_own() {
    let start = Numbers::new(0.3, DType::F32);
    let own = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.1);
    let mut own = ModuleOptimizer::from(own.build());
    let settings = AdamWSettings { weight_decay: 0.1, decay_all: true, ..AdamWSettings::default() };
    let mut ours = settings.init(&start).unwrap();
    let grads = wavering(100);
    let expected = start.clone().step(&mut own, 1e-3, &grads).values();
    assert_eq!(start.step(&mut ours, 1e-3, &grads).values(), expected);
    assert!(expected[0] < 0.25);
}

#[test]
fn masters_and_compensated_weights_follow_where_bf16_stands_still() {
    let grads = wavering(3000);
    // Starting value, and the distance of two bf16 numbers where the weight goes.
    for (start, ulp, matrix_too) in [(0.02, 2f64.powi(-13), true), (1.0, 2f64.powi(-8), false)] {
        let start = bf16::from_f32(start).to_f32();
        let expected = closed_form(f64::from(start), 1e-6, &grads, |x| x);
        assert!(f64::from(start) - expected > 0.6 * ulp);
        let close = |found: f64| (found - expected).abs() <= 0.51 * ulp;
        let near = |found: f64| (found - expected).abs() <= ulp;
        assert_eq!(after(HalfWeights::None, start, 1e-6, &grads), [f64::from(start); 2]);
        let master = after(HalfWeights::Master, start, 1e-6, &grads);
        assert!(master.into_iter().all(close), "{start}: {master:?} {expected}");
        let [matrix, bias] = after(HalfWeights::Kahan, start, 1e-6, &grads);
        assert!(close(bias), "{start}: {bias} {expected}");
        // 1e-6 is below what the 16 bits of a matrix's 1.0 hold.
        assert!(if matrix_too { near(matrix) } else { matrix == 1.0 }, "{start}: {matrix} {expected}");
    }
}

#[test]
fn compensated_weights_decay_too() {
    let numbers = Numbers::new(0.5, DType::BF16);
    let settings = AdamWSettings { weight_decay: 0.1, ..settings(HalfWeights::Kahan, Moments::F32) };
    let mut optimizer = settings.init(&numbers).unwrap();
    let [matrix, bias] = numbers.step(&mut optimizer, 1e-3, &vec![0.0; 1000]).values();
    assert!((matrix - 0.5 * (1.0f64 - 1e-4).powi(1000)).abs() <= 2f64.powi(-9), "{matrix}");
    assert_eq!(bias, 0.5);
}

#[test]
fn moments_of_16_bits_are_rounded_between_steps() {
    // Large gradients, then small ones: a second moment of 16 bits does not come down again.
    let grads: Vec<f64> = std::iter::repeat_n(1.0, 100).chain(wavering(500)).collect();
    let rounded = |x: f64| f64::from(bf16::from_f64(x));
    let found = |moments| {
        let numbers = Numbers::new(0.5, DType::F32);
        let mut optimizer = settings(HalfWeights::Master, moments).init(&numbers).unwrap();
        numbers.step(&mut optimizer, 1e-3, &grads).values()[0]
    };
    let expected = [closed_form(0.5, 1e-3, &grads, |x| x), closed_form(0.5, 1e-3, &grads, rounded)];
    let found = [found(Moments::F32), found(Moments::Bf16)];
    assert!((expected[0] - expected[1]).abs() > 1e-3, "{expected:?}");
    assert!((found[0] - expected[0]).abs() < 1e-5, "{found:?} {expected:?}");
    assert!((found[1] - expected[1]).abs() < 1e-4, "{found:?} {expected:?}");
}

#[test]
fn a_run_goes_on_from_its_bytes() {
    let grads = wavering(40);
    for half in [HalfWeights::Master, HalfWeights::Kahan, HalfWeights::None] {
        for moments in [Moments::F32, Moments::Bf16] {
            let settings = settings(half, moments);
            let start = Numbers::new(0.02, DType::BF16);
            let mut optimizer = settings.init(&start).unwrap();
            let middle = start.step(&mut optimizer, 1e-5, &grads[..20]);
            let bytes = optimizer.into_bytes().unwrap();
            let mut restored = settings.init(&middle).unwrap().from_bytes(bytes).unwrap();
            let mut forgetful = settings.init(&middle).unwrap();
            let expected = middle.clone().step(&mut optimizer, 1e-5, &grads[20..]).values();
            let found = middle.clone().step(&mut restored, 1e-5, &grads[20..]).values();
            assert_eq!(found, expected, "{half:?} {moments:?}");
            if half != HalfWeights::None {
                let forgotten = middle.step(&mut forgetful, 1e-5, &grads[20..]).values();
                assert_ne!(forgotten, expected, "{half:?} {moments:?}");
            }
        }
    }
}

/// Some numbers, different for each step.
fn noise(count: usize, step: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 12_989 + step * 78_233) as f32).sin() * 10f32.powi((i % 7) as i32 - 4)).collect()
}

/// A matrix larger than a piece of [`host_step`](super::host_step), as a view of another, and a bias.
fn large(dtype: DType) -> Numbers {
    let device = Device::default().autodiff();
    let values = |count, seed| noise(count, seed);
    let matrix = Tensor::<2>::from_data(TensorData::new(values(97 * 61, 90), [97, 61]), &device);
    let bias = Tensor::<1>::from_data(TensorData::new(values(61, 91), [61]), &device);
    stable_param_ids(Numbers {
        matrix: Param::from_tensor(matrix.cast(dtype).detach()),
        bias: Param::from_tensor(bias.cast(dtype).detach()),
    })
}

#[test]
fn a_step_in_one_pass_has_the_bits_of_burns_operations() {
    let device = Device::default();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        for half in [HalfWeights::Master, HalfWeights::Kahan, HalfWeights::None] {
            for (moments, grad_type) in [(Moments::F32, DType::F32), (Moments::Bf16, dtype)] {
                let own = AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.1).build();
                let rates = Rates { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1 };
                let adamw = PreciseAdamW { inner: own, rates, half, moments };
                let start = large(dtype).matrix.val().inner();
                let (mut plain, mut fused) = ((start.clone(), None), (start, None));
                for step in 0..5 {
                    let grad = TensorData::new(noise(61 * 97, step), [61, 97]);
                    // A gradient in another order in memory than the weight.
                    let grad = Tensor::<2>::from_data(grad, &device).cast(grad_type).transpose();
                    let lr = [1e-3, 0.0, 0.3, 1e-2, 1e-5][step];
                    let (weight, state) = plain;
                    let (weight, state) = adamw.step_by_tensors(lr, weight, grad.clone(), state);
                    plain = (weight, state);
                    let (weight, state) = fused;
                    let (weight, state) = adamw.step(lr, weight, grad, state);
                    fused = (weight, state);
                    let what = format!("{dtype:?} {half:?} {moments:?} step {step}");
                    assert_eq!(fused.0.to_data(), plain.0.to_data(), "{what}");
                    assert_eq!(stored(fused.1.as_ref().unwrap()), stored(plain.1.as_ref().unwrap()), "{what}");
                }
            }
        }
    }
}

/// Everything that a checkpoint holds of a state.
fn stored(state: &PreciseState<2>) -> Vec<(String, TensorData)> {
    let mut sink = StateSink::default();
    state.state_flatten("p", &mut sink);
    sink.tensors
}
