//! Numbers of parameters and of floating-point operations, computed from a configuration.

mod counts;
mod flops;

pub use counts::{AdapterCounts, ParameterCounts};
pub use flops::{AdapterSizes, Flops, PartFlops};
