//! The folder of a run: its files and checkpoints, its lock, and whether the run in it can be resumed.

mod checkpoints;
mod inputs;
mod manifest;
mod resume;
mod run_folder;

pub(crate) use self::run_folder::write_whole;
pub use self::{
    checkpoints::{Best, Checkpoints},
    inputs::{INPUTS, Inputs},
    manifest::{Fingerprint, weights_fingerprint},
    resume::{Begin, LEFT_BEHIND},
    run_folder::{Lock, RunFolder},
};
