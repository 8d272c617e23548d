//! Tensors of Burn's CPU backend (Flex) as slices, for loops over them on all cores.
//!
//! Flex computes products on all cores, but element-wise operations, reductions and softmax on one, and each makes a
//! tensor of its own. The loops here make a single pass. Without the feature `flex`, no tensor is a [`HostTensor`].

#[cfg(not(feature = "flex"))]
mod absent;
mod floats;
#[cfg(feature = "flex")]
mod tensor;
mod vectors;

#[cfg(not(feature = "flex"))]
pub use self::absent::HostTensor;
pub use self::floats::Floats;
#[cfg(feature = "flex")]
pub use self::tensor::HostTensor;
pub use self::vectors::{BLOCK, LANES, exp_of_negative, largest, sum};

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
