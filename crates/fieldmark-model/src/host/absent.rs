//! What stands for a tensor of the CPU backend in a build without it.

use std::convert::Infallible;

use burn::tensor::Tensor;

use super::Floats;

/// A tensor of the CPU backend. This build has none.
pub struct HostTensor(Infallible);

impl HostTensor {
    /// Returns `x`.
    ///
    /// # Errors
    /// Always.
    pub fn of<const D: usize>(x: Tensor<D>) -> Result<Self, Tensor<D>> {
        Err(x)
    }

    /// Returns `x`.
    ///
    /// # Errors
    /// Always.
    pub fn floating<const D: usize>(x: Tensor<D>) -> Result<Self, Tensor<D>> {
        Err(x)
    }

    /// The values.
    pub fn floats_mut(&mut self) -> Floats<'_> {
        match self.0 {}
    }

    /// The values.
    pub fn values(&self) -> &[f32] {
        match self.0 {}
    }

    /// The values.
    pub fn values_mut(&mut self) -> &mut [f32] {
        match self.0 {}
    }

    /// Returns the tensor.
    pub fn into_tensor<const D: usize>(self) -> Tensor<D> {
        match self.0 {}
    }
}

/// Gives `x` back.
///
/// # Errors
/// Always.
pub fn rms_norm<const D: usize>(x: Tensor<D>, _gamma: Tensor<1>, _epsilon: f64) -> Result<Tensor<D>, Tensor<D>> {
    Err(x)
}

/// Gives both back.
///
/// # Errors
/// Always.
pub fn silu_gate<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Result<Tensor<D>, [Tensor<D>; 2]> {
    Err([a, b])
}

/// Gives both back.
///
/// # Errors
/// Always.
pub fn times_transposed(x: Tensor<2>, w: Tensor<2>) -> Result<Tensor<2>, [Tensor<2>; 2]> {
    Err([x, w])
}
