//! Runs as library calls. [`sft()`], [`tapo()`] and [`eval()`] take their parts (model, source, rewards, settings), a
//! folder and an [`Observer`]. The functions ending in `_from_recipe` make the parts from a
//! [recipe](crate::recipe::Recipe).
//!
//! A training run can be stopped or killed at any moment. When resumed, it ends with the same files, byte for byte.

mod course;
mod drive;
mod eval;
mod eval_recipe;
mod example;
mod inputs;
mod observer;
mod outcome;
mod recipe;
mod saving;
mod score;
mod setup;
mod sft;
mod tapo;

use fieldmark_train::TrainError;

pub use self::{
    course::Course,
    eval::{Eval, Evaluated, eval},
    eval_recipe::{EvalOptions, eval_from_recipe},
    observer::{Observer, RunEvent, Silent},
    outcome::{Finished, Outcome},
    recipe::RecipeRun,
    score::{score, score_with},
    setup::RunSetup,
    sft::{Sft, sft, sft_from_recipe},
    tapo::{Tapo, tapo, tapo_from_recipe},
};
use crate::{checkpoint::Checkpoint, error::RunError, recipe::ModelSection};

/// Opens the checkpoint of a run and tells the observer what a reader should know about it.
fn open(section: &ModelSection, observer: &mut dyn Observer) -> Result<Checkpoint, RunError> {
    let checkpoint = Checkpoint::open(section)?;
    let notes = checkpoint.notes.iter().chain(&checkpoint.contradictions);
    notes.into_iter().try_for_each(|note| observer.event(RunEvent::Note(note)))?;
    Ok(checkpoint)
}

/// Makes every sample once and drops it, so that a damaged image or a sample that is too long ends the run before the
/// first step.
fn check(
    rows: usize,
    make: impl Fn(usize) -> Result<(), TrainError>,
    observer: &mut dyn Observer,
) -> Result<(), RunError> {
    for row in 0..rows {
        make(row)?;
        observer.event(RunEvent::Checked { done: row + 1, total: rows })?;
    }
    Ok(())
}
