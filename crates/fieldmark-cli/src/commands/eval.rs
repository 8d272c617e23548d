//! `fieldmark eval`: writes the predictions of a checkpoint in both worlds, then scores the predictions file.

use fieldmark::{
    RunError,
    eval::Answered,
    recipe::Recipe,
    run::{EvalOptions, Evaluated, RunEvent, eval_from_recipe, score, score_with},
    train::trainer::Interrupt,
};

use super::{Outcome, recipe, say};
use crate::{arguments::EvalArgs, display::Progress, signals::Listener, tell::tell};

/// Predicts and scores, or does one of the two. Returns [`Outcome::Failed`] if a question could not be asked.
///
/// # Errors
/// Returns an error if the recipe, the data, the checkpoint or the predictions are wrong.
pub fn run(args: &EvalArgs) -> anyhow::Result<Outcome> {
    if let Some(file) = &args.score_only {
        let data = Recipe::read(&[], &args.recipe.set)?.data;
        say(&score_with(file, data.aliases_file())?)?;
        return Ok(Outcome::Done);
    }
    let needs = ["model.path=DIR", "eval.files='[\"FILE\"]'", "output=DIR"];
    let mut recipe = recipe(&args.recipe, "eval", &needs)?;
    recipe.model.adapter = args.adapter.clone().or(recipe.model.adapter);
    recipe.eval.limit = args.limit.map(|limit| limit as usize).or(recipe.eval.limit);
    let interrupt = Interrupt::new();
    let device = args.device.name().map(str::to_owned);
    let stop = interrupt.clone();
    let options = EvalOptions { device, overwrite: args.overwrite, resume: args.resume, interrupt };
    let (mut progress, mut listener): (Option<Progress>, Option<Listener>) = (None, None);
    let Evaluated { predictions, answered } = eval_from_recipe(&recipe, &options, &mut |event: RunEvent<'_>| {
        match event {
            RunEvent::Note(text) => tell(format_args!("note: {text}")),
            RunEvent::Answered { done, total } => {
                // Before the first batch there is nothing to save, so a signal ends the process while the model is loaded.
                if listener.is_none() {
                    listener = Some(Listener::new("batch", stop.clone()).map_err(RunError::observer)?);
                }
                progress.get_or_insert_with(|| Progress::new("eval", total).from(done)).step(done, String::new());
            }
            _ => {}
        }
        Ok(())
    })?;
    progress.iter().for_each(Progress::finish);
    let Answered { done, total, failed } = answered;
    if !answered.is_finished() {
        let recipe = predictions.with_file_name("eval.toml");
        // Nothing is lost if nobody can read this, because the terminal was closed.
        let _ = say(&format!(
            "stopped after {done} of {total} questions; their answers: {}. To continue: fieldmark eval -c {} --resume",
            predictions.display(),
            recipe.display()
        ));
        return Ok(Outcome::Interrupted);
    }
    let shown = predictions.display();
    if args.predict_only {
        say(&format!("{total} predictions: {shown}"))?;
    } else {
        // From the file, so that --score-only prints the same.
        let report = score(&predictions)?;
        let file = predictions.with_file_name("report.txt");
        fieldmark::model::files::write_whole(&file, report.as_bytes())
            .map_err(|error| anyhow::anyhow!("{}: cannot be written: {error}", file.display()))?;
        say(&format!("{report}\n{total} predictions: {shown}"))?;
    }
    if failed == 0 {
        return Ok(Outcome::Done);
    }
    say(&format!(
        "{failed} of {total} questions could not be asked; `error` in their rows says why. Once they can be, ask them \
         again with --resume"
    ))?;
    Ok(Outcome::Failed)
}
