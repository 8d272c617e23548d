//! Reading and writing weights and adapters, in the formats of transformers and PEFT.

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

pub use adapter::Adapter;
pub use checkpoint::checkpoint_files;
pub use load::LoadOptions;
pub use part_types::PartTypes;
pub use save::SaveOptions;
pub use weight_type::WeightType;
