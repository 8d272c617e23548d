//! Checkpoint folders: which folder a path means, and what is in it before the weights are loaded.

mod folder;
mod open;

pub use self::{folder::checkpoint_folder, open::Pretrained};
