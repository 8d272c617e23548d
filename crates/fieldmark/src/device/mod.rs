//! Devices by name: `flex`, `cuda:0`, `vulkan`, `wgpu`, `metal`, `rocm`, of those compiled in.

mod attempt;
mod error;
mod kind;
mod open;
mod reduction;

pub use attempt::{attempt, panic_message};
pub use error::DeviceError;
pub use kind::{DeviceKind, default_name};
pub use open::{OpenDevice, open, open_all};
pub use reduction::reduction;
