//! What a network costs, from its configuration alone: numbers of parameters and floating-point operations.

mod counts;
mod flops;

pub use counts::{AdapterCounts, ParameterCounts};
pub use flops::{AdapterSizes, Flops, PartFlops};
