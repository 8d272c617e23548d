//! The folder of a run: its files and checkpoints, its lock, and whether the run in it can be resumed.

mod apart;
mod checkpoints;
mod hand_written;
mod inputs;
mod manifest;
mod photographs;
mod replaced;
mod resume;
mod run_folder;

pub use self::{
    apart::Source,
    checkpoints::{Best, Checkpoints},
    inputs::{INPUTS, Inputs},
    manifest::{Fingerprint, weights_fingerprint},
    replaced::{EVAL_LEFT_BEHIND, LEFT_BEHIND},
    resume::Begin,
    run_folder::{Lock, RunFolder},
};
pub(crate) use self::{
    replaced::{EVAL, RUN, Replaced},
    run_folder::write_whole,
};
