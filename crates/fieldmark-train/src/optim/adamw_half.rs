//! AdamW for 16-bit weights: Burn's AdamW makes the step in f32, on the exact value of the weight, which is stored too.
//!
//! Reference of [`HalfWeights::Kahan`]: `AnyPrecisionAdamW` (torchdistx; `verl/utils/torch_functional.py`), which
//! computes the step in bf16 and loses the decay. Here only the stored values have 16 bits. f32 weights take Burn's own
//! step. On the CPU, [`HostStep`] computes the same in one pass.

use burn::{
    optim::{
        AdamW, AdamWState, AdaptiveMomentumState, LearningRate, Optimizer, RecordState, StateSink, StateSource,
        join_path,
    },
    tensor::{DType, Device, Tensor, TensorData},
};
use fieldmark_model::host::HostTensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::host_step::{Exact, HostStep, Rates};

/// How the optimiser keeps the precision that bf16 and f16 weights lose. It does not concern f32 weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HalfWeights {
    /// An f32 copy of the weight, 4 bytes more per parameter. Training is as in f32, but forward and backward passes
    /// use the rounded weights.
    #[default]
    Master,
    /// The rounding error of the weight, in the weight's type, 2 bytes more per parameter (released code). An update
    /// smaller than 2^-18 of the weight is lost: with a learning rate of 1e-6, weights above 0.25 soon stop changing.
    /// Biases and norms are few and often that large, so they get an f32 copy instead.
    Kahan,
    /// Nothing. An update smaller than 2^-9 of a bf16 weight is lost; with a learning rate of 1e-6 that is nearly every
    /// one.
    None,
}

/// Type of the two stored moments. They are computed in f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Moments {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, half the memory (released code). Rounding swallows a decay by `beta2` = 0.999: the second moment rises
    /// with the largest gradients and hardly falls again.
    Bf16,
}

/// Burn's AdamW, plus the precision that the weight's type loses.
#[derive(Clone)]
pub(crate) struct PreciseAdamW {
    pub(crate) inner: AdamW,
    pub(crate) rates: Rates,
    pub(crate) half: HalfWeights,
    pub(crate) moments: Moments,
}

/// State of one parameter. Without `master` and `lost` it has the names and content of Burn's AdamW.
#[derive(Clone)]
pub(crate) struct PreciseState<const D: usize> {
    momentum: AdaptiveMomentumState<D>,
    /// The weight in f32.
    master: Option<Tensor<D>>,
    /// The exact weight minus the stored weight.
    lost: Option<Tensor<D>>,
}

// By hand, because Burn's derive refers to paths of its own crate.
impl<const D: usize> RecordState for PreciseState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        self.momentum.state_flatten(&join_path(prefix, "momentum"), out);
        for (leaf, tensor) in [("master", &self.master), ("lost", &self.lost)] {
            if let Some(tensor) = tensor {
                out.push_tensor(prefix, leaf, tensor.to_data());
            }
        }
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        // Loading into the device's default type would lose precision.
        let in_own_type = |data: TensorData| {
            let dtype = data.dtype();
            Tensor::from_data(data, (device, dtype))
        };
        Some(Self {
            momentum: RecordState::state_unflatten(&join_path(prefix, "momentum"), src, device)?,
            master: src.take_tensor(prefix, "master").map(in_own_type),
            lost: src.take_tensor(prefix, "lost").map(in_own_type),
        })
    }
}

impl Optimizer for PreciseAdamW {
    type State<const D: usize> = PreciseState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<PreciseState<D>>,
    ) -> (Tensor<D>, Option<PreciseState<D>>) {
        let form = self.form::<D>(tensor.dtype());
        if state.as_ref().is_some_and(|state| state.is_of_other_settings(form)) {
            return self.step_by_tensors(lr, tensor, grad, state);
        }
        match (HostTensor::floating(tensor), HostTensor::floating(grad)) {
            (Ok(weight), Ok(grad)) => self.step_on_host(lr, form, weight.into_tensor(), grad, state),
            (weight, grad) => {
                let tensor = weight.map_or_else(|tensor| tensor, HostTensor::into_tensor);
                let grad = grad.map_or_else(|grad| grad, HostTensor::into_tensor);
                self.step_by_tensors(lr, tensor, grad, state)
            }
        }
    }

    fn to_device<const D: usize>(state: PreciseState<D>, device: &Device) -> PreciseState<D> {
        PreciseState {
            momentum: state.momentum.to_device(device),
            master: state.master.map(|master| master.to_device(device)),
            lost: state.lost.map(|lost| lost.to_device(device)),
        }
    }
}

impl PreciseAdamW {
    /// The step by Burn's operations, on any device.
    pub(super) fn step_by_tensors<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<PreciseState<D>>,
    ) -> (Tensor<D>, Option<PreciseState<D>>) {
        let stored = tensor.dtype();
        let computed = if is_half(stored) { DType::F32 } else { stored };
        let (momentum, master, lost) = match state {
            Some(state) => (Some(state.momentum), state.master, state.lost),
            None => (None, None, None),
        };
        let exact = master.unwrap_or_else(|| exact(tensor, lost, computed));
        let momentum = momentum.map(|momentum| AdamWState::new(in_type(momentum, computed)));
        let (next, found) = self.inner.step(lr, exact, grad.cast(computed), momentum);
        let rounded = next.clone().cast(stored);
        let (master, lost) = match self.form::<D>(stored) {
            Form::Weight => (None, None),
            Form::Master => (Some(next), None),
            Form::Lost => (None, Some((next - rounded.clone().cast(computed)).cast(stored))),
        };
        let kept = self.kept(computed);
        let state = found.map(|found| PreciseState { momentum: in_type(found.momentum, kept), master, lost });
        (rounded, state)
    }

    /// The step in one pass, with the result of [`Self::step_by_tensors`].
    fn step_on_host<const D: usize>(
        &self,
        lr: LearningRate,
        form: Form,
        weight: Tensor<D>,
        grad: HostTensor,
        state: Option<PreciseState<D>>,
    ) -> (Tensor<D>, Option<PreciseState<D>>) {
        let (momentum, master, lost) = match state {
            Some(state) => (state.momentum, state.master, state.lost),
            None => (start(&weight), None, None),
        };
        let AdaptiveMomentumState { time, moment_1, moment_2, max_moment_2 } = in_type(momentum, self.kept(DType::F32));
        let exact = match form {
            Form::Weight => Exact::Weight,
            Form::Master => Exact::Master(on_host(master.unwrap_or_else(|| exact(weight.clone(), lost, DType::F32)))),
            Form::Lost => Exact::Lost(on_host(lost.unwrap_or_else(|| weight.zeros_like()))),
        };
        let (moment_1, moment_2) = (on_host(moment_1), on_host(moment_2));
        let mut step = HostStep { weight: on_host(weight), exact, moment_1, moment_2, grad };
        step.run(&self.rates, lr, time + 1);
        let (master, lost) = match step.exact {
            Exact::Weight => (None, None),
            Exact::Master(master) => (Some(master.into_tensor()), None),
            Exact::Lost(lost) => (None, Some(lost.into_tensor())),
        };
        let (moment_1, moment_2) = (step.moment_1.into_tensor(), step.moment_2.into_tensor());
        let momentum = AdaptiveMomentumState { time: time + 1, moment_1, moment_2, max_moment_2 };
        (step.weight.into_tensor(), Some(PreciseState { momentum, master, lost }))
    }

    /// Returns the form in which the exact value of a weight of this type is kept.
    fn form<const D: usize>(&self, stored: DType) -> Form {
        match self.half {
            _ if !is_half(stored) => Form::Weight,
            HalfWeights::Kahan if D > 1 => Form::Lost,
            HalfWeights::Master | HalfWeights::Kahan => Form::Master,
            HalfWeights::None => Form::Weight,
        }
    }

    /// Returns the type of the stored moments.
    fn kept(&self, computed: DType) -> DType {
        match self.moments {
            Moments::F32 => computed,
            Moments::Bf16 => DType::BF16,
        }
    }
}

/// What of a weight is kept beside the weight.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// Nothing.
    Weight,
    /// Its value in f32.
    Master,
    /// Its rounding error.
    Lost,
}

impl<const D: usize> PreciseState<D> {
    /// Whether a run with other settings, which kept the weight in another form, left this state.
    fn is_of_other_settings(&self, form: Form) -> bool {
        match form {
            Form::Weight => self.master.is_some() || self.lost.is_some(),
            Form::Master => false,
            Form::Lost => self.master.is_some(),
        }
    }
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// Returns the exact value of a weight.
fn exact<const D: usize>(weight: Tensor<D>, lost: Option<Tensor<D>>, computed: DType) -> Tensor<D> {
    match lost {
        Some(lost) => weight.cast(computed) + lost.cast(computed),
        None => weight.cast(computed),
    }
}

/// Returns the moments before the first step.
fn start<const D: usize>(weight: &Tensor<D>) -> AdaptiveMomentumState<D> {
    let zeros = || Tensor::zeros(weight.shape(), (&weight.device(), DType::F32));
    AdaptiveMomentumState { time: 0, moment_1: zeros(), moment_2: zeros(), max_moment_2: None }
}

/// Takes a tensor of a parameter whose weight is a [`HostTensor`].
fn on_host<const D: usize>(tensor: Tensor<D>) -> HostTensor {
    HostTensor::floating(tensor).expect("the optimiser's tensors are on the weight's device, in f32 or 16 bits")
}

fn in_type<const D: usize>(momentum: AdaptiveMomentumState<D>, dtype: DType) -> AdaptiveMomentumState<D> {
    let AdaptiveMomentumState { time, moment_1, moment_2, max_moment_2 } = momentum;
    AdaptiveMomentumState {
        time,
        moment_1: moment_1.cast(dtype),
        moment_2: moment_2.cast(dtype),
        max_moment_2: max_moment_2.map(|moment| moment.cast(dtype)),
    }
}
