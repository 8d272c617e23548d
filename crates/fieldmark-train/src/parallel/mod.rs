//! Several devices that share an update.

mod reduction;

pub use self::reduction::Reduction;
pub(crate) use self::reduction::reduce;
