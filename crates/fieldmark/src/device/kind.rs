//! The kinds of device, and which of them this build has.

use burn::tensor::Device;

/// A kind of device. Each has a cargo feature of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU.
    Flex,
    /// NVIDIA cards through CUDA.
    Cuda,
    /// Any GPU through Vulkan, shaders as SPIR-V.
    Vulkan,
    /// Any GPU through WebGPU, shaders as WGSL.
    Wgpu,
    /// Apple GPUs.
    Metal,
    /// AMD cards through ROCm.
    Rocm,
}

impl DeviceKind {
    /// All kinds, whether compiled in or not.
    pub const ALL: [Self; 6] = [Self::Flex, Self::Cuda, Self::Vulkan, Self::Wgpu, Self::Metal, Self::Rocm];

    /// The name on the command line and of the cargo feature.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Cuda => "cuda",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
            Self::Metal => "metal",
            Self::Rocm => "rocm",
        }
    }

    /// What the machine must have for it.
    pub(super) fn needs(self) -> &'static str {
        match self {
            Self::Flex => "nothing but a CPU",
            Self::Cuda => "NVIDIA's driver, and libdevice.10.bc of a CUDA toolkit, whose folder CUDA_PATH may name",
            Self::Vulkan => "a driver for Vulkan",
            Self::Wgpu => "a driver for Vulkan, Metal or DirectX 12",
            Self::Metal => "macOS",
            Self::Rocm => "ROCm, with AMD's driver",
        }
    }

    /// Returns true if this build contains the backend.
    pub fn is_compiled(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Rocm => cfg!(feature = "rocm"),
        }
    }

    /// The kinds that this build contains.
    pub fn compiled() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| kind.is_compiled())
    }

    /// Burn's device, number `index` of its kind; `None` if the backend is not compiled in.
    pub(super) fn handle(self, index: Option<usize>) -> Option<Device> {
        #[cfg(any(feature = "vulkan", feature = "wgpu", feature = "metal"))]
        let adapter = index.map_or(burn::tensor::DeviceKind::DefaultDevice, burn::tensor::DeviceKind::DiscreteGpu);
        #[cfg(any(feature = "cuda", feature = "rocm"))]
        let number = index.unwrap_or(0);
        let _ = index;
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Some(Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda => Some(Device::cuda(number)),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Some(Device::vulkan(adapter)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Some(Device::wgpu(adapter)),
            #[cfg(feature = "metal")]
            Self::Metal => Some(Device::metal(adapter)),
            #[cfg(feature = "rocm")]
            Self::Rocm => Some(Device::rocm(number)),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}

/// The device used when none is named: `flex`, or the first kind that this build contains.
pub fn default_name() -> &'static str {
    DeviceKind::compiled().next().map_or("flex", DeviceKind::name)
}

/// The names of `kinds` with commas between them, or "none".
pub(super) fn list(kinds: impl Iterator<Item = DeviceKind>) -> String {
    let names: Vec<&str> = kinds.map(DeviceKind::name).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}
