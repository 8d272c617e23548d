//! Memory of a training run: the plan computed from sizes before the run, and the peak measured during it.

mod blocks;
mod peak_memory;
mod plan;
mod workload;

pub use self::{
    peak_memory::peak_memory,
    plan::{MemoryPart, MemoryPlan, Phase},
    workload::{MicroShape, RolloutShape, Workload},
};
