//! The parameters of a model, and their names, shapes and layout in checkpoints.

mod layout;
mod named;
mod path;

pub(crate) use layout::{stored_shape, transpose};
pub(crate) use path::ParamPath;

pub use layout::{new_layout, published_layout};
pub use named::NamedParameter;
