//! Root mean square norm. Reference: `Qwen2RMSNorm`.

use burn::{nn::RmsNorm, tensor::Tensor};

use crate::host;

/// Applies `norm` to the last axis of `x`. On the CPU this is one pass on all cores; elsewhere it is Burn's.
pub(crate) fn rms_norm<const D: usize>(norm: &RmsNorm, x: Tensor<D>) -> Tensor<D> {
    host::rms_norm(x, norm.gamma.val(), norm.epsilon).unwrap_or_else(|x| norm.forward(x))
}
