//! Weights in and out, in the layouts that transformers reads and writes.

mod adapter;
mod load;
mod names;
mod parameters;
mod save;

pub(crate) use load::{CheckpointMap, Filler};
pub(crate) use names::ParamPath;

pub use load::{LoadOptions, PartTypes, checkpoint_files};
pub use names::{new_layout, published_layout};
pub use parameters::NamedParameter;
pub use save::{SaveOptions, StoredType};
