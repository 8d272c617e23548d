//! `fieldmark sft`: supervised fine-tuning of a checkpoint on conversations with reasoning, the first stage of Fine-R1.

use std::time::Instant;

use fieldmark::run::sft_from_recipe;

use super::{Outcome, training};
use crate::{arguments::RunArgs, display::Shown};

/// The keys that a recipe must set.
const NEEDS: [&str; 3] = ["model.path=DIR", "data.sft.file=FILE", "output=DIR"];

/// Trains and saves.
///
/// # Errors
/// Returns an error if the recipe, the data or the checkpoint is wrong, before anything is written.
pub fn run(args: &RunArgs) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let (run, mut display) = training::prepare(args, ("sft", &NEEDS), |_| Shown::Sft)?;
    let output = run.recipe.output.clone();
    let outcome = sft_from_recipe(run, &mut display)?;
    display.finish();
    let words = ("sft", "updates", "rows", "lowest validation loss");
    training::report(&outcome, words, output.as_deref(), start)
}
