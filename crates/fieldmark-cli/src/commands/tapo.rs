//! `fieldmark tapo`: triplet-augmented policy optimisation of a checkpoint, the second stage of Fine-R1.

use std::time::Instant;

use fieldmark::run::tapo_from_recipe;

use super::{Outcome, training};
use crate::{arguments::RunArgs, display::Shown};

/// The keys that a recipe must set.
const NEEDS: [&str; 3] = ["model.path=DIR", "data.tapo.file=FILE", "output=DIR"];

/// Trains and saves.
///
/// # Errors
/// Returns an error if the recipe, the data or the checkpoint is wrong, before anything is written.
pub fn run(args: &RunArgs) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let shown = |recipe: &fieldmark::recipe::Recipe| Shown::Tapo(recipe.tapo.rewards.keys().cloned().collect());
    let (run, mut display) = training::prepare(args, ("tapo", &NEEDS), shown)?;
    let output = run.recipe.output.clone();
    let outcome = tapo_from_recipe(run, &mut display)?;
    display.finish();
    let words = ("tapo", "rollout steps", "triplets", "highest validation reward");
    training::report(&outcome, words, output.as_deref(), start)
}
