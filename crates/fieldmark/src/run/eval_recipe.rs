//! An evaluation as a recipe says, which can be stopped or killed and resumed. It keeps its recipe and the content of
//! what it reads under names of its own, so that it may share the folder of a training run.

use std::path::PathBuf;

use fieldmark_data::RowImage;
use fieldmark_eval::{EvalRun, Kept, QuestionSet, RunName};
use fieldmark_generate::{GenerationConfig, Sampling};
use fieldmark_train::trainer::Interrupt;

use super::{
    Observer, RunEvent,
    eval::{Eval, Evaluated, PREDICTIONS, answer},
    inputs::{adapter, keep_photographs_apart},
};
use crate::{
    checkpoint::{Checkpoint, limited},
    device,
    error::RunError,
    folder::{EVAL, EVAL_LEFT_BEHIND, Inputs, RunFolder, Source},
    recipe::{EvalSection, READ, Recipe},
    source::{held_out_classes, held_out_note, large_note, question_files, question_sets, unused_aliases},
};

/// The recipe of an evaluation in its folder.
pub(super) const RECIPE: &str = "eval.toml";
/// The content of what it reads.
pub(super) const INPUTS: &str = "eval-inputs.json";

/// Keys that may differ when an evaluation is resumed. Answers may depend on `eval.batch` and the device by rounding, but
/// a device that ran out of memory needs a smaller batch.
const NEUTRAL: [&str; 11] = [
    "output",
    "device",
    "run",
    "lora",
    "sft",
    "tapo",
    "data.check",
    "data.sft",
    "data.tapo",
    "model.stored",
    "eval.batch",
];

/// Options of an evaluation that are not in its recipe.
#[derive(Debug, Clone, Default)]
pub struct EvalOptions {
    /// The device, instead of the recipe's.
    pub device: Option<String>,
    /// Whether the folder may contain files.
    pub overwrite: bool,
    /// Whether to go on with the evaluation in the folder.
    pub resume: bool,
    /// A shared flag that stops the evaluation after the current batch.
    pub interrupt: Interrupt,
}

/// Answers the questions of a recipe. With [`EvalOptions::resume`], answers those that have no answer yet, and asks again
/// those that could not be asked.
///
/// # Errors
/// Returns an error if the recipe, its data or its checkpoint is wrong, or if the evaluation in the folder is another one.
pub fn eval_from_recipe(
    recipe: &Recipe,
    options: &EvalOptions,
    observer: &mut dyn Observer,
) -> Result<Evaluated, RunError> {
    let path = recipe.output.as_deref();
    let may_hold_one = options.resume && !RunFolder::at(path)?.is_empty()?;
    let folder = if may_hold_one { RunFolder::at(path)? } else { RunFolder::check(path, options.overwrite)? };
    folder.keep_apart(&EVAL_LEFT_BEHIND, &sources(recipe))?;
    let lock = folder.path().is_dir().then(|| folder.lock()).transpose()?;
    folder.check_writable(EVAL)?;
    let goes_on = options.resume && resume(recipe, &folder, observer)?;
    let list = folder.file(INPUTS);
    let mut inputs = read_inputs(recipe)?;
    if goes_on {
        inputs.check_files(&list)?;
    }
    let sets = question_sets(&recipe.eval, &recipe.data)?;
    let note = held_out_note(&held_out_classes(&recipe.data)?);
    let note = note.into_iter().chain(unused_aliases(&recipe.data, &sets)?);
    note.into_iter().try_for_each(|note| observer.event(RunEvent::Note(&note)))?;
    sets.iter().try_for_each(QuestionSet::check_images)?;
    let photographs: Vec<Option<PathBuf>> = sets.iter().flat_map(QuestionSet::photographs).collect();
    let found: Vec<PathBuf> = photographs.iter().flatten().cloned().collect();
    keep_photographs_apart(&folder, &EVAL_LEFT_BEHIND, &found)?;
    let images: Vec<RowImage> = found.iter().cloned().map(RowImage::Path).collect();
    large_note(&images).iter().try_for_each(|note| observer.event(RunEvent::Note(note)))?;
    inputs = inputs.photographs(found.iter().map(PathBuf::as_path))?.questions(photographs.len());
    let kept = if goes_on { Kept::read(&folder.file(PREDICTIONS))? } else { Kept::default() };
    if goes_on {
        // A photograph that could not be read may have been mended.
        let failed = kept.rows.iter().zip(&photographs).filter(|(row, _)| row.error.is_some());
        let mended: Vec<PathBuf> = failed.filter_map(|(_, photograph)| photograph.clone()).collect();
        inputs.check_photographs(&list, &mended)?;
    }
    let named = recipe.device.as_deref().filter(|name| !name.is_empty());
    let device = device::open(options.device.as_deref().or(named).unwrap_or_else(|| device::default_name()))?;
    let checkpoint = super::open(&recipe.model, observer)?;
    let (min, max) = (recipe.eval.min_pixels, recipe.eval.max_pixels);
    let processor = limited(&checkpoint.processor, min, max, |key| format!("eval.{key}"))?;
    let generation = generation(&recipe.eval, checkpoint.eos.clone())?;
    let model = checkpoint.load(&device.device)?;
    // All rows of a file name the model in the same way.
    let name = kept.rows.first().map_or_else(|| checkpoint.name(), |row| row.settings.model.clone());
    let run = EvalRun {
        model: &model,
        processor: &processor,
        decode: recipe.data.decode(),
        generation,
        seed: recipe.seed,
        name: RunName { model: name, device: device.name.clone() },
        device: &device.device,
    };
    kept.check(&folder.file(PREDICTIONS), &sets, &run.settings())?;
    folder.create()?;
    let _lock = lock.map_or_else(|| folder.lock(), Ok)?;
    folder.check_empty()?;
    let replaced = if goes_on { folder.go_on_beside(EVAL) } else { folder.set_aside(EVAL)? };
    folder.write(INPUTS, &inputs.to_json()?)?;
    if !goes_on {
        folder.write(RECIPE, recipe.clone().with_absolute_paths().to_toml()?.as_bytes())?;
    }
    answer(&Eval { run, sets: &sets, interrupt: options.interrupt.clone() }, &folder, kept, replaced, observer)
}

/// Returns true if the folder holds an evaluation of the recipe, and false if it holds nothing.
///
/// # Errors
/// Returns an error if it holds something else.
fn resume(recipe: &Recipe, folder: &RunFolder, observer: &mut dyn Observer) -> Result<bool, RunError> {
    let ours = folder.file(RECIPE);
    if !ours.is_file() && folder.path().is_dir() {
        folder.put_back(EVAL)?;
    }
    if !ours.is_file() {
        if !folder.only_hidden()? {
            let problem = format!(
                "has no {RECIPE}, so there is no evaluation to resume; choose another folder with --set output=DIR"
            );
            return Err(RunError::path(folder.path(), problem));
        }
        let note = format!("{}: there is nothing to resume, so the evaluation starts", folder.path().display());
        observer.event(RunEvent::Note(&note))?;
        return Ok(false);
    }
    let saved = Recipe::read(&[ours], &[])?.with_absolute_paths();
    let given = recipe.clone().with_absolute_paths();
    let mut ignored = NEUTRAL.to_vec();
    if Inputs::are_by_key(&folder.file(INPUTS))? {
        ignored.extend(READ);
    }
    match saved.difference(&given, &ignored) {
        None => Ok(true),
        Some(found) => Err(RunError::OtherRecipe {
            folder: folder.path().into(),
            file: RECIPE,
            key: found.key,
            given: found.second,
            saved: found.first,
        }),
    }
}

/// What an evaluation reads.
fn sources(recipe: &Recipe) -> Vec<Source> {
    let data = &recipe.data;
    let model = Checkpoint::source(&recipe.model).map(|folder| Source::model("model.path", folder)).into_iter();
    let model = model.chain(adapter(recipe).map(|folder| Source::model("model.adapter", folder)));
    let files = recipe.eval.files.iter().map(|path| Source::data("eval.files", path));
    let images = data.images.iter().map(|path| Source::data("data.images", path));
    let labels = data.labels.iter().map(|path| Source::data("data.labels", path));
    let labels = labels.chain(data.aliases_file().map(|path| Source::data("data.aliases", path)));
    let labels = labels.chain(data.prefixes.values().map(|path| Source::data("data.prefixes", path)));
    model.chain(files).chain(images).chain(labels).filter(|source| !source.path.as_os_str().is_empty()).collect()
}

/// Reads the content of the question files and of the model.
fn read_inputs(recipe: &Recipe) -> Result<Inputs, RunError> {
    let mut inputs = Inputs::default();
    for (number, file) in question_files(&recipe.eval)?.iter().enumerate() {
        inputs = inputs.file(&format!("eval.files[{number}]"), file)?;
    }
    if let (Some(folder), true) = (&recipe.data.labels, recipe.eval.files.is_empty()) {
        inputs = inputs.file("data.labels", &folder.join("labels.csv"))?;
    }
    if let Some(file) = recipe.data.aliases_file() {
        inputs = inputs.file("data.aliases", file)?;
    }
    if let Some(folder) = adapter(recipe) {
        inputs = inputs.model("model.adapter", &folder)?;
    }
    inputs.model("model.path", &Checkpoint::source(&recipe.model)?)
}

fn generation(eval: &EvalSection, eos: Vec<u32>) -> Result<GenerationConfig, RunError> {
    let sampling = Sampling {
        temperature: eval.temperature,
        top_k: eval.top_k,
        top_p: eval.top_p,
        min_p: eval.min_p,
        repetition_penalty: eval.repetition_penalty,
    };
    let generation =
        GenerationConfig { sampling, max_batch: eval.batch, ..GenerationConfig::greedy(eval.max_new_tokens, eos) };
    generation.validate()?;
    Ok(generation)
}
