//! The common parts of `fieldmark sft` and `fieldmark tapo`.

use std::time::Instant;

use fieldmark::{
    recipe::Recipe,
    run::{Outcome as RunOutcome, RecipeRun},
    train::trainer::Interrupt,
};

use super::{Outcome, recipe, say};
use crate::{
    arguments::RunArgs,
    display::{RunDisplay, Shown},
};

/// Reads the recipe, and makes the run and its display. `needs` are the keys that `stage` cannot do without.
///
/// # Errors
/// Returns an error if there is no recipe or it is wrong.
pub fn prepare(
    args: &RunArgs,
    (stage, needs): (&str, &[&str]),
    shown: impl FnOnce(&Recipe) -> Shown,
) -> anyhow::Result<(RecipeRun, RunDisplay)> {
    let mut recipe = recipe(&args.recipe, stage, needs)?;
    recipe.model.adapter = args.adapter.clone().or(recipe.model.adapter);
    let interrupt = Interrupt::new();
    let display = RunDisplay::new(shown(&recipe), recipe.run.dashboard, interrupt.clone());
    let device = args.device.name().map(str::to_owned);
    Ok((RecipeRun { recipe, device, overwrite: args.overwrite, resume: args.resume, interrupt }, display))
}

/// Prints how a run of `stage` ended. It counts its steps in `unit` ("updates") and its data in `rows` ("rows"); `best_is`
/// is the measure of the best model.
///
/// # Errors
/// Returns an error if standard output is closed.
pub fn report(
    outcome: &RunOutcome,
    (stage, unit, rows, best_is): (&str, &str, &str, &str),
    output: Option<&std::path::Path>,
    start: Instant,
) -> anyhow::Result<Outcome> {
    match outcome {
        RunOutcome::Stopped { done, total, saved } => {
            let recipe = output.unwrap_or("".as_ref()).join("recipe.toml");
            // The run has saved. If nobody can read this, because the terminal was closed, that is no error.
            let _ = say(&format!(
                "stopped after {} {done} of {total}; saved in {}. To continue: fieldmark {stage} -c {} --resume",
                unit.trim_end_matches('s'),
                saved.display(),
                recipe.display()
            ));
            Ok(Outcome::Interrupted)
        }
        RunOutcome::Finished(finished) => {
            let folder = finished.checkpoint.display();
            match finished.steps {
                None => say(&format!("the run was already finished; its last model: {folder}"))?,
                Some(steps) => {
                    let (count, time) = (finished.rows, elapsed(start));
                    let resumed = finished.new_steps != steps;
                    let now = if resumed { format!(" ({} of them now)", finished.new_steps) } else { String::new() };
                    say(&format!("{steps} {unit}{now} on {count} {rows} in {time}; the last model: {folder}"))?;
                }
            }
            if let Some((best, folder)) = &finished.best {
                say(&format!("the best model, with the {best_is} {:.4}: {}", best.value, folder.display()))?;
            }
            Ok(Outcome::Done)
        }
    }
}

/// The time since `start`, such as "3 min 20 s".
fn elapsed(start: Instant) -> String {
    let seconds = start.elapsed().as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}
