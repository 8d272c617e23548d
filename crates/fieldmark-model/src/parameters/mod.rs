//! The parameters of a model: where they are, what checkpoints call them and how they are laid out there.

mod layout;
mod named;
mod path;

pub(crate) use layout::{stored_shape, transpose};
pub(crate) use path::ParamPath;

pub use layout::{new_layout, published_layout};
pub use named::NamedParameter;
