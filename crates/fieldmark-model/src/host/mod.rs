//! Tensors of Burn's CPU backend (Flex) as slices, for loops over them on all cores.
//!
//! Flex computes products on all cores, but element-wise operations, reductions and softmax on one, and each makes a
//! tensor of its own. The loops here make a single pass; those that training needs have a backward pass of their own.
//! Without the feature `flex`, no tensor is a [`HostTensor`].

#![allow(clippy::result_large_err, reason = "such an error is not one: it gives the tensors back")]

#[cfg(not(feature = "flex"))]
mod absent;
mod floats;
#[cfg(feature = "flex")]
mod gate;
#[cfg(feature = "flex")]
mod norm;
#[cfg(feature = "flex")]
mod product;
#[cfg(feature = "flex")]
mod tape;
#[cfg(feature = "flex")]
mod tensor;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod vectors;
mod whole;

#[cfg(not(feature = "flex"))]
pub use self::absent::{HostTensor, rms_norm, silu_gate, times_transposed};
pub use self::{
    floats::Floats,
    vectors::{BLOCK, LANES, exp_of_negative, largest, sum},
    whole::{add, scale, sum_of_squares},
};
#[cfg(feature = "flex")]
pub use self::{
    gate::silu_gate,
    norm::rms_norm,
    product::times_transposed,
    tape::{Kept, put_on_tape, taken_from_tape},
    tensor::HostTensor,
};

use burn::tensor::Device;

/// Returns whether tensors of this device are ordinary memory.
pub fn is_host(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    return *device == Device::flex();
    #[cfg(not(feature = "flex"))]
    {
        let _ = device;
        false
    }
}
