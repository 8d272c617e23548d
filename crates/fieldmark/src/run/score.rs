//! The report on a predictions file: scores for every data set, split and world under both matching rules, and what a
//! reader must know about them, such as questions that have no answer yet.

use std::path::Path;

use fieldmark_data::Aliases;
use fieldmark_eval::{Matching, Prediction, Predictions, Question, Report, Scores, World, read_predictions};

use super::{
    eval::PREDICTIONS,
    eval_recipe::{INPUTS, RECIPE},
};
use crate::{error::RunError, folder::Inputs};

/// Makes the report on a predictions file: scores for every data set, split and world under both matching rules, and
/// the score of always naming the first option. It says how many questions of an evaluation are answered, if the file is
/// in the folder of one.
///
/// # Errors
/// Returns the errors of [`read_predictions`], and an error if the file has no whole row.
pub fn score(predictions: &Path) -> Result<String, RunError> {
    score_with(predictions, None)
}

/// Like [`score`], with further names of the classes from a file of aliases ([`Aliases::read`]).
///
/// # Errors
/// Returns the errors of [`score`], and of [`Aliases::read`] and [`Aliases::check`] for the file.
pub fn score_with(predictions: &Path, aliases: Option<&Path>) -> Result<String, RunError> {
    let Predictions { mut rows, torn } = read_predictions(predictions)?;
    let mut notes = state(predictions, &rows, torn);
    if rows.is_empty() {
        let problem = format!("has no predictions to score. {}", notes.join(" "));
        return Err(RunError::path(predictions, problem.trim_end()));
    }
    if let Some(file) = aliases {
        notes.extend(add_aliases(&mut rows, file)?);
    }
    Ok(report(&rows, notes))
}

/// Adds the aliases of a file to the questions. Returns a note if it is about none of them.
fn add_aliases(rows: &mut [Prediction], file: &Path) -> Result<Option<String>, RunError> {
    let more = Aliases::read(file)?;
    let mut all = more.clone();
    rows.iter().for_each(|prediction| all.merge(&prediction.question.aliases));
    let names = |question: &Question| -> Vec<String> {
        question.options.iter().chain([&question.ground_truth]).cloned().collect()
    };
    let known: Vec<String> = rows.iter().flat_map(|prediction| names(&prediction.question)).collect();
    let known = || known.iter().map(String::as_str);
    all.check(known(), file)?;
    for question in rows.iter_mut().map(|prediction| &mut prediction.question) {
        let own = names(question);
        question.aliases.merge(&more.only(own.iter().map(String::as_str)));
    }
    Ok(more.unused_note(known(), &file.display().to_string()))
}

/// What the file and its folder say about questions that have no answer yet.
fn state(file: &Path, rows: &[Prediction], torn: Option<usize>) -> Vec<String> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let is_ours = file.file_name().is_some_and(|name| name == PREDICTIONS);
    let total = is_ours.then(|| Inputs::number_of_questions(&folder.join(INPUTS))).flatten();
    let recipe = Some(folder.join(RECIPE)).filter(|recipe| is_ours && recipe.is_file());
    let command = match recipe {
        Some(recipe) => format!("fieldmark eval -c {} --resume", recipe.display()),
        None => "eval --resume in the folder of the evaluation".into(),
    };
    let mut notes = Vec::new();
    if let Some(row) = torn {
        let file = file.display();
        notes.push(format!(
            "{file}:{row}: the file ends in the middle of this row, which does not count. To complete it: {command}"
        ));
    }
    let answered = rows.iter().filter(|row| row.error.is_none()).count();
    match total {
        Some(total) if rows.len() < total => notes.push(format!(
            "{answered} of {total} questions are answered, and the scores are of these alone. To go on: {command}"
        )),
        Some(total) if rows.len() == total => notes.push(format!("{answered} of {total} questions are answered.")),
        // A folder that does not say how many questions there are, or a file of another evaluation.
        _ => notes.push(format!("{answered} questions are answered; the folder does not say of how many.")),
    }
    notes
}

fn report(predictions: &[Prediction], notes: Vec<String>) -> String {
    let rules = [("strict", Matching::Strict), ("official (inclusion)", Matching::Official)];
    let mut text = String::new();
    let mut summary = Report::new();
    for (name, matching) in rules {
        let scores = Scores::of(predictions, matching);
        for world in World::ALL.into_iter().filter(|world| !scores.datasets(*world).is_empty()) {
            text.push_str(&format!("{name}\n{}\n\n", Report::datasets_table(&scores, world).to_text()));
        }
        summary.add(name, scores);
    }
    summary.add("always the first option", Scores::first_option(predictions));
    let failed = predictions.iter().filter(|prediction| prediction.error.is_some()).count();
    let cut = predictions.iter().filter(|prediction| prediction.error.is_none() && !prediction.finished).count();
    summary.note("In brackets: 95 % confidence intervals. Strict: the answer names one option, and it is the truth.");
    if cut > 0 {
        summary.note(format!("{cut} of {} answers were cut at the length limit.", predictions.len()));
    }
    if failed > 0 {
        let note = "could not be asked and count as wrong; `error` in their rows says why.";
        summary.note(format!("{failed} of {} questions {note}", predictions.len()));
    }
    for note in notes {
        summary.note(note);
    }
    text.push_str(&summary.to_text());
    text
}
