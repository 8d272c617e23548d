//! AdamW for weights of 16 bits: one step of Burn's AdamW in f32 on the weight's exact value, which is kept beside it.
//!
//! Reference of [`HalfWeights::Kahan`]: `AnyPrecisionAdamW` (torchdistx; `verl/utils/torch_functional.py`), where the
//! step is computed in bf16 and the decay is lost. Here only what is stored has 16 bits. f32 weights step as before.

use burn::{
    optim::{
        AdamW, AdamWState, AdaptiveMomentumState, LearningRate, Optimizer, RecordState, StateSink, StateSource,
        join_path,
    },
    tensor::{DType, Device, Tensor, TensorData},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is kept of the part of a bf16 or f16 weight that its 16 bits do not hold. Weights of f32 need none of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HalfWeights {
    /// The whole weight again in f32, 4 bytes more a parameter: training as in f32, with rounded weights in the passes.
    #[default]
    Master,
    /// What rounding took from the weight, in the weight's type, 2 bytes more a parameter, as released. Together they
    /// hold 16 bits: an update below 2^-18 of a weight is lost, so that at a rate of 1e-6 weights above 0.25 soon stand
    /// still. Biases and norms, which lie there and are few, have a master instead.
    Kahan,
    /// Nothing: an update below 2^-9 of a bf16 weight is lost, which at a rate of 1e-6 are nearly all.
    None,
}

/// The type in which the two moments are stored; they are computed in f32.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Moments {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, half the memory, as released. A decay by `beta2` = 0.999 is below their rounding: the second moment
    /// then rises to the largest gradients and hardly falls again.
    Bf16,
}

/// Burn's AdamW with everything that the weight's type does not hold.
#[derive(Clone)]
pub(crate) struct PreciseAdamW {
    pub(crate) inner: AdamW,
    pub(crate) half: HalfWeights,
    pub(crate) moments: Moments,
}

/// State of one parameter; without `master` and `lost` it is that of Burn's AdamW, under the same names.
#[derive(Clone)]
pub(crate) struct PreciseState<const D: usize> {
    momentum: AdaptiveMomentumState<D>,
    /// The weight in f32.
    master: Option<Tensor<D>>,
    /// The exact weight minus the stored one.
    lost: Option<Tensor<D>>,
}

// By hand: Burn's derive names its own crate's root.
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
        // In the type it was stored in, whatever the device's default is.
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
        let stored = tensor.dtype();
        let half = matches!(stored, DType::F16 | DType::BF16);
        let computed = if half { DType::F32 } else { stored };
        let (momentum, master, lost) = match state {
            Some(state) => (Some(state.momentum), state.master, state.lost),
            None => (None, None, None),
        };
        let exact = match (master, lost) {
            (Some(master), _) => master,
            (None, Some(lost)) => tensor.cast(computed) + lost.cast(computed),
            (None, None) => tensor.cast(computed),
        };
        let momentum = momentum.map(|momentum| AdamWState::new(in_type(momentum, computed)));
        let (next, found) = self.inner.step(lr, exact, grad.cast(computed), momentum);
        let rounded = next.clone().cast(stored);
        let (master, lost) = match self.half {
            _ if !half => (None, None),
            HalfWeights::Kahan if D > 1 => (None, Some((next - rounded.clone().cast(computed)).cast(stored))),
            HalfWeights::Master | HalfWeights::Kahan => (Some(next), None),
            HalfWeights::None => (None, None),
        };
        let kept = match self.moments {
            Moments::F32 => computed,
            Moments::Bf16 => DType::BF16,
        };
        let state = found.map(|found| PreciseState { momentum: in_type(found.momentum, kept), master, lost });
        (rounded, state)
    }

    fn to_device<const D: usize>(state: PreciseState<D>, device: &Device) -> PreciseState<D> {
        PreciseState {
            momentum: state.momentum.to_device(device),
            master: state.master.map(|master| master.to_device(device)),
            lost: state.lost.map(|lost| lost.to_device(device)),
        }
    }
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
