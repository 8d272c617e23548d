//! AdamW for 16-bit weights: Burn's AdamW makes the step in f32, on the exact value of the weight, which is stored too.
//!
//! Reference of [`HalfWeights::Kahan`]: `AnyPrecisionAdamW` (torchdistx; `verl/utils/torch_functional.py`), which
//! computes the step in bf16 and loses the decay. Here only the stored values have 16 bits. f32 weights take Burn's own
//! step.

use burn::{
    optim::{
        AdamW, AdamWState, AdaptiveMomentumState, LearningRate, Optimizer, RecordState, StateSink, StateSource,
        join_path,
    },
    tensor::{DType, Device, Tensor, TensorData},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
