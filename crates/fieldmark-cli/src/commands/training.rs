//! What `fieldmark sft` and `fieldmark tapo` have in common.

use std::time::Instant;

use fieldmark::{
    recipe::Recipe,
    run::{Outcome as RunOutcome, RecipeRun},
    train::trainer::Interrupt,
};

use super::{Outcome, say};
use crate::{
    arguments::RunArgs,
    display::{RunDisplay, Shown},
};

/// Reads the recipe, and makes the run and what shows it.
///
/// # Errors
/// Whatever is wrong with the recipe.
pub fn prepare(args: &RunArgs, shown: impl FnOnce(&Recipe) -> Shown) -> anyhow::Result<(RecipeRun, RunDisplay)> {
    let recipe = Recipe::read(&args.config, &args.set)?;
    let interrupt = Interrupt::new();
    let display = RunDisplay::new(shown(&recipe), recipe.run.dashboard, interrupt.clone());
    let device = args.device.name().map(str::to_owned);
    Ok((RecipeRun { recipe, device, overwrite: args.overwrite, resume: args.resume, interrupt }, display))
}

/// Says how a run of `stage` ended. `unit` is what it counts ("updates"), `rows` what it trained on ("rows").
///
/// # Errors
/// If nobody can be told.
pub fn report(
    outcome: &RunOutcome,
    (stage, unit, rows, best_is): (&str, &str, &str, &str),
    output: Option<&std::path::Path>,
    start: Instant,
) -> anyhow::Result<Outcome> {
    match outcome {
        RunOutcome::Stopped { done, total, saved } => {
            let recipe = output.unwrap_or("".as_ref()).join("recipe.toml");
            say(&format!(
                "stopped after {} {done} of {total}, saved in {}; to continue: fieldmark {stage} -c {} --resume",
                unit.trim_end_matches('s'),
                saved.display(),
                recipe.display()
            ))?;
            Ok(Outcome::Interrupted)
        }
        RunOutcome::Finished(finished) => {
            let folder = finished.checkpoint.display();
            match finished.steps {
                None => say(&format!("the run is finished: {folder}"))?,
                Some(steps) => {
                    let (count, time) = (finished.rows, elapsed(start));
                    say(&format!("{steps} {unit} on {count} {rows} in {time}: {folder}"))?;
                }
            }
            if let Some((best, folder)) = &finished.best {
                say(&format!("{best_is} {:.4}: {}", best.value, folder.display()))?;
            }
            Ok(Outcome::Done)
        }
    }
}

/// "3 min 20 s" since `start`.
fn elapsed(start: Instant) -> String {
    let seconds = start.elapsed().as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}
