//! Training on several devices.

mod reduction;

pub use self::reduction::Reduction;
pub(crate) use self::reduction::reduce;
