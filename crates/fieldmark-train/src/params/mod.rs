//! The parameters of a model: stable ids, initial values, and counts of trainable ones.

mod adapters;
mod ids;
mod initialise;
mod learns;

pub(crate) use self::learns::check_learns;
pub use self::{
    adapters::{Trainable, initialise_adapters, trainable},
    ids::stable_param_ids,
    initialise::initialise,
};
