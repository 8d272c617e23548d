//! Reading and writing weights and adapters, in the formats of transformers and PEFT.

mod adapter;
mod checkpoint;
mod filler;
mod found;
mod hub;
mod inside;
mod load;
mod part_types;
mod published;
mod python_json;
mod quantised;
mod save;
mod stored;
mod weight_type;

pub(crate) use checkpoint::{CheckpointMap, two_forms};
pub(crate) use filler::Filler;
pub(crate) use found::file_names;
pub(crate) use hub::download_hint;
pub(crate) use inside::newest_inside;
pub(crate) use published::PublishedTensors;

pub use adapter::Adapter;
pub use checkpoint::checkpoint_files;
pub use load::LoadOptions;
pub use part_types::PartTypes;
pub use save::SaveOptions;
pub use weight_type::WeightType;
