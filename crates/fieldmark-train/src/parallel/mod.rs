//! Parallel work: several workers on a device, and several devices.

mod reduction;
mod workers;

pub(crate) use self::workers::{on_replicas, on_replicas_telling, sum_on_replicas};
pub use self::{reduction::Reduction, workers::Replicas};
