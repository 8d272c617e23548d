//! A model's parameters: ids that outlive the process, their values before training, and which of them learn.

mod adapters;
mod ids;
mod initialise;

pub use self::{
    adapters::{Trainable, initialise_adapters, trainable},
    ids::stable_param_ids,
    initialise::initialise,
};
