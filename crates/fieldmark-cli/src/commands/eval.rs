//! `fieldmark eval`: writes the predictions of a checkpoint in both worlds, then scores the predictions file.

use fieldmark::{
    recipe::Recipe,
    run::{EvalOptions, RunEvent, eval_from_recipe, score, score_with},
};

use super::{Outcome, recipe, say};
use crate::{arguments::EvalArgs, display::Progress};

/// Predicts and scores, or does one of the two.
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
    let options = EvalOptions { device: args.device.name().map(str::to_owned), overwrite: args.overwrite };
    let mut progress: Option<Progress> = None;
    let (path, total) = eval_from_recipe(&recipe, &options, &mut |event: RunEvent<'_>| {
        match event {
            RunEvent::Note(text) => eprintln!("note: {text}"),
            RunEvent::Answered { done, total } => {
                progress.get_or_insert_with(|| Progress::new("eval", total)).step(done, String::new());
            }
            _ => {}
        }
        Ok(())
    })?;
    progress.iter().for_each(Progress::finish);
    if args.predict_only {
        say(&format!("{total} predictions: {}", path.display()))?;
        return Ok(Outcome::Done);
    }
    // From the file, so that --score-only prints the same.
    let report = score(&path)?;
    let file = path.with_file_name("report.txt");
    fieldmark::model::files::write_whole(&file, report.as_bytes())
        .map_err(|error| anyhow::anyhow!("{}: cannot be written: {error}", file.display()))?;
    say(&format!("{report}\n{total} predictions: {}", path.display()))?;
    Ok(Outcome::Done)
}
