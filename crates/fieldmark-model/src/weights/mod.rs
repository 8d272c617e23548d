//! Weights in and out, in the layouts that transformers and PEFT read and write.

mod adapter;
mod checkpoint;
mod filler;
mod load;
mod part_types;
mod save;
mod stored;
mod weight_type;

pub(crate) use checkpoint::CheckpointMap;
pub(crate) use filler::Filler;

pub use checkpoint::checkpoint_files;
pub use load::LoadOptions;
pub use part_types::PartTypes;
pub use save::SaveOptions;
pub use weight_type::WeightType;
