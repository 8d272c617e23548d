//! An evaluation: writes the predictions of a model in both worlds to `predictions.jsonl` and computes scores from that
//! file alone.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fieldmark_data::Aliases;
use fieldmark_eval::{
    EvalRun, Matching, Prediction, Question, QuestionSet, Report, RunName, Scores, World, read_predictions,
};
use fieldmark_generate::{GenerationConfig, Sampling};
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::DecodeOptions;

use super::{Observer, RunEvent};
use crate::{
    checkpoint::{Checkpoint, limited},
    device,
    error::RunError,
    folder::RunFolder,
    recipe::{EvalSection, Recipe},
    source::{held_out_classes, held_out_note, question_sets},
};

/// The parts of an evaluation.
pub struct Eval<'a> {
    /// The model, its processor, and the decoding settings.
    pub run: EvalRun<'a>,
    /// The questions.
    pub sets: &'a [QuestionSet],
}

impl<'a> Eval<'a> {
    /// Creates an evaluation with greedy answers of at most `max_new_tokens` tokens. `model` holds the weights of
    /// `checkpoint` on `device`.
    pub fn greedy(
        checkpoint: &'a Checkpoint,
        model: &'a Qwen25Vl,
        device: &'a Device,
        sets: &'a [QuestionSet],
        max_new_tokens: usize,
    ) -> Self {
        let run = EvalRun {
            model,
            processor: &checkpoint.processor,
            decode: DecodeOptions::default(),
            generation: GenerationConfig::greedy(max_new_tokens, checkpoint.eos.clone()),
            seed: 42,
            name: RunName { model: checkpoint.name(), device: String::new() },
            device,
        };
        Self { run, sets }
    }
}

/// Answers all questions, writes `predictions.jsonl` in `folder` and returns its path. The file appears when all
/// questions are answered.
///
/// # Errors
/// Returns an error before the first question if a photograph is missing. Also returns an error if a question cannot be
/// answered, or if the file cannot be written.
pub fn eval(parts: Eval<'_>, folder: &RunFolder, observer: &mut dyn Observer) -> Result<PathBuf, RunError> {
    parts.sets.iter().try_for_each(QuestionSet::check_images)?;
    folder.create()?;
    let path = folder.file("predictions.jsonl");
    let mut told = Ok(());
    parts.run.predict(parts.sets, &path, |done, total| {
        if told.is_ok() {
            told = observer.event(RunEvent::Answered { done, total });
        }
    })?;
    told.map(|()| path)
}

/// Options of an evaluation that are not in its recipe.
#[derive(Debug, Clone, Default)]
pub struct EvalOptions {
    /// The device, instead of the recipe's.
    pub device: Option<String>,
    /// Whether the folder may contain files.
    pub overwrite: bool,
}

/// Answers the questions of a recipe. Returns the predictions file and the number of questions.
///
/// # Errors
/// Returns an error if the recipe, its data or its checkpoint is wrong.
pub fn eval_from_recipe(
    recipe: &Recipe,
    options: &EvalOptions,
    observer: &mut dyn Observer,
) -> Result<(PathBuf, usize), RunError> {
    let folder = RunFolder::check(recipe.output.as_deref(), options.overwrite)?;
    let sets = question_sets(&recipe.eval, &recipe.data)?;
    let note = held_out_note(&held_out_classes(&recipe.data)?);
    note.iter().try_for_each(|note| observer.event(RunEvent::Note(note)))?;
    let total = sets.iter().map(|set| set.questions.len()).sum();
    let named = recipe.device.as_deref().filter(|name| !name.is_empty());
    let device = device::open(options.device.as_deref().or(named).unwrap_or_else(|| device::default_name()))?;
    let checkpoint = super::open(&recipe.model, observer)?;
    let (min, max) = (recipe.eval.min_pixels, recipe.eval.max_pixels);
    let processor = limited(&checkpoint.processor, min, max, |key| format!("eval.{key}"))?;
    let generation = generation(&recipe.eval, checkpoint.eos.clone())?;
    let model = checkpoint.load(&device.device)?;
    let run = EvalRun {
        model: &model,
        processor: &processor,
        decode: recipe.data.decode(),
        generation,
        seed: recipe.seed,
        name: RunName { model: checkpoint.name(), device: device.name.clone() },
        device: &device.device,
    };
    let path = eval(Eval { run, sets: &sets }, &folder, observer)?;
    folder.write("recipe.toml", recipe.to_toml()?.as_bytes())?;
    Ok((path, total))
}

fn generation(eval: &EvalSection, eos: Vec<u32>) -> Result<GenerationConfig, RunError> {
    let sampling = Sampling {
        temperature: eval.temperature,
        top_k: eval.top_k,
        top_p: eval.top_p,
        repetition_penalty: eval.repetition_penalty,
    };
    let generation =
        GenerationConfig { sampling, max_batch: eval.batch, ..GenerationConfig::greedy(eval.max_new_tokens, eos) };
    generation.validate()?;
    Ok(generation)
}

/// Makes the report on a predictions file: scores for every data set, split and world under both matching rules, and
/// the score of always naming the first option.
///
/// # Errors
/// Returns an error if the file cannot be read or has no predictions.
pub fn score(predictions: &Path) -> Result<String, RunError> {
    score_with(predictions, None)
}

/// Like [`score`], with further names of the classes from a file of aliases ([`Aliases::read`]).
///
/// # Errors
/// Returns the errors of [`score`], and of [`Aliases::read`] and [`Aliases::check`] for the file.
pub fn score_with(predictions: &Path, aliases: Option<&Path>) -> Result<String, RunError> {
    let mut found = read_predictions(predictions)?;
    if found.is_empty() {
        return Err(RunError::path(predictions, "has no predictions to score"));
    }
    if let Some(file) = aliases {
        let more = Aliases::read(file)?;
        let mut all = more.clone();
        found.iter().for_each(|prediction| all.merge(&prediction.question.aliases));
        let names = |question: &Question| -> Vec<String> {
            question.options.iter().chain([&question.ground_truth]).cloned().collect()
        };
        let known: Vec<String> = found.iter().flat_map(|prediction| names(&prediction.question)).collect();
        all.check(known.iter().map(String::as_str), file)?;
        for question in found.iter_mut().map(|prediction| &mut prediction.question) {
            let own = names(question);
            question.aliases.merge(&more.only(own.iter().map(String::as_str)));
        }
    }
    Ok(report(&found))
}

fn report(predictions: &[Prediction]) -> String {
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
    let cut = predictions.iter().filter(|prediction| !prediction.finished).count();
    summary.note("In brackets: 95 % confidence intervals. Strict: the answer names one option, and it is the truth.");
    if cut > 0 {
        summary.note(format!("{cut} of {} answers were cut at the length limit.", predictions.len()));
    }
    text.push_str(&summary.to_text());
    text
}
