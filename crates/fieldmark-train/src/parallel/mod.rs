//! Work side by side, on several workers of a device and on several devices.

mod workers;

pub use self::workers::Replicas;
pub(crate) use self::workers::{on_replicas, sum_on_replicas};
