//! `fieldmark eval`: predictions of a checkpoint in both worlds, then their scores, from the predictions file alone.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use fieldmark::{
    data::{EvalSet, EvalSetName, ImageRoots, Split, eval_set_from_photos, read_eval_rows},
    eval::{
        EvalRun, Matching, OptionOrder, Prediction, PredictionWriter, Question, QuestionSet, Report, RunName, Scores,
        World, closed_questions, open_questions, read_predictions, rotations,
    },
    generate::{GenerationConfig, Sampling},
    progress::Progress,
    recipe::{EvalSection, Order, Recipe},
};

use super::{EvalArgs, Outcome, checkpoint, labels::Labels, output::OutputFolder, say, training};

/// Predicts and scores, or one of both.
///
/// # Errors
/// Whatever is wrong with recipe, data, checkpoint or predictions.
pub fn run(args: &EvalArgs) -> anyhow::Result<Outcome> {
    if let Some(file) = &args.score_only {
        say(&report(&read_predictions(file)?)?)?;
        return Ok(Outcome::Done);
    }
    let mut recipe = Recipe::read(&args.config, &args.set)?;
    recipe.eval.limit = args.limit.map(|limit| limit as usize).or(recipe.eval.limit);
    let output = OutputFolder::check(recipe.output.as_deref(), args.overwrite)?;
    let sets = sets(&recipe)?;
    let asked: Vec<QuestionSet> = sets
        .into_iter()
        .map(|(set, roots)| Ok(QuestionSet::new(questions(&recipe.eval, set)?, roots)))
        .collect::<anyhow::Result<_>>()?;
    let total = asked.iter().map(|set| set.questions.len()).sum();
    let device = training::open_device(args.device.name(), &recipe)?;
    let checkpoint = checkpoint::Checkpoint::open(&recipe.model)?;
    let (min, max) = (recipe.eval.min_pixels, recipe.eval.max_pixels);
    let processor = checkpoint::limited(&checkpoint.processor, min, max, "eval")?;
    let generation = generation(&recipe.eval, checkpoint.eos.clone())?;
    let model = checkpoint.load(&device.device)?;
    let run = EvalRun {
        model: &model,
        processor: &processor,
        decode: recipe.data.decode(),
        generation,
        seed: recipe.seed,
        name: RunName { model: checkpoint.folder.display().to_string(), device: device.name.clone() },
        device: &device.device,
    };
    asked.iter().try_for_each(QuestionSet::check_images)?;

    output.create()?;
    let path = output.file("predictions.jsonl");
    let mut writer = PredictionWriter::create(&path)?;
    let progress = Progress::new("eval", total);
    run.predict_into(&asked, &mut writer, |done, _| progress.step(done, String::new()))?;
    writer.finish()?;
    progress.finish();
    output.write("recipe.toml", recipe.to_toml()?.as_bytes())?;
    if args.predict_only {
        say(&format!("{total} predictions: {}", path.display()))?;
        return Ok(Outcome::Done);
    }
    // Scored from the file, as they would be by --score-only.
    let report = report(&read_predictions(&path)?)?;
    output.write("report.txt", report.as_bytes())?;
    say(&format!("{report}\n{total} predictions: {}", path.display()))?;
    Ok(Outcome::Done)
}

fn generation(eval: &EvalSection, eos: Vec<u32>) -> anyhow::Result<GenerationConfig> {
    let sampling = Sampling {
        temperature: eval.temperature,
        top_k: eval.top_k,
        top_p: eval.top_p,
        repetition_penalty: eval.repetition_penalty,
    };
    let generation =
        GenerationConfig { sampling, max_batch: eval.batch, ..GenerationConfig::greedy(eval.max_new_tokens, eos) };
    generation.validate().map_err(|error| anyhow!("[eval] {error}"))?;
    Ok(generation)
}

/// Every set of rows with the place of its images.
fn sets(recipe: &Recipe) -> anyhow::Result<Vec<(EvalSet, ImageRoots)>> {
    let eval = &recipe.eval;
    if eval.worlds.is_empty() {
        bail!("`eval.worlds` is empty; name \"closed\", \"open\" or both");
    }
    let mut sets = Vec::new();
    for path in &eval.files {
        for file in files(path)? {
            let set = read_eval_rows(&file, EvalSetName::from_file_name(&file)?)?;
            sets.push((set, recipe.data.roots(&file)));
        }
    }
    match &recipe.data.labels {
        Some(folder) if sets.is_empty() => sets.extend(from_labels(folder, recipe)?),
        None if sets.is_empty() => {
            bail!(
                "no questions; name files with --set eval.files='[\"FILE\"]' or photographs with --set data.labels=DIR"
            )
        }
        _ => {}
    }
    for (set, _) in &mut sets {
        if eval.released_super_category {
            set.rows.iter_mut().for_each(|row| row.super_category = row.released_super_category().into());
        }
        if let Some(limit) = eval.limit.filter(|limit| *limit < set.rows.len()) {
            let total = set.rows.len();
            set.rows = (0..limit).map(|i| set.rows[i * total / limit].clone()).collect();
        }
    }
    Ok(sets)
}

/// A file, or the evaluation files of a folder in the order of their names.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let entries = std::fs::read_dir(path).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    let files = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files.filter(|file| EvalSetName::from_file_name(file).is_ok()).collect();
    files.sort();
    if files.is_empty() {
        bail!("{}: holds no file named <dataset>_seen.jsonl or <dataset>_unseen.jsonl", path.display());
    }
    Ok(files)
}

fn from_labels(folder: &Path, recipe: &Recipe) -> anyhow::Result<Vec<(EvalSet, ImageRoots)>> {
    let data = &recipe.data;
    let labels = Labels::open(folder, data, recipe.seed)?;
    let similar = labels.similar(&labels.all_training(), data.decode())?;
    let dataset = folder.file_name().map_or("photographs".into(), |name| name.to_string_lossy().into_owned());
    let mut sets = Vec::new();
    for split in Split::ALL {
        let photos = labels.test(split);
        if photos.is_empty() {
            continue;
        }
        let name = EvalSetName { dataset: dataset.clone(), split, super_category: dataset.clone() };
        let set = eval_set_from_photos(name, photos, &similar, recipe.eval.options, |_| data.question.clone())?;
        sets.push((set, ImageRoots::new(folder)));
    }
    if sets.is_empty() {
        bail!("{}: no photograph of labels.csv is in the split \"test\"", folder.display());
    }
    Ok(sets)
}

/// The questions of a set, those about one photograph side by side.
fn questions(eval: &EvalSection, set: EvalSet) -> anyhow::Result<Vec<Question>> {
    let mut questions = Vec::new();
    let seed = eval.option_seed;
    if eval.worlds.contains(&World::Closed) {
        let most = set.rows.iter().map(|row| row.options.len()).max().unwrap_or(0);
        let orders: Vec<OptionOrder> = match eval.order {
            Order::Shuffled => vec![OptionOrder::Shuffled { seed }],
            Order::Released => vec![OptionOrder::Released],
            Order::Rotations => rotations(seed, most.max(1)).collect(),
        };
        for order in orders {
            let fits = |question: &Question| match order {
                OptionOrder::Rotated { by, .. } => by < question.options.len(),
                _ => true,
            };
            questions.extend(closed_questions(&set, order, eval.closed_prompt)?.into_iter().filter(fits));
        }
    }
    if eval.worlds.contains(&World::Open) {
        questions.extend(open_questions(&set, eval.open_prompt));
    }
    questions.sort_by_key(|question| question.row);
    Ok(questions)
}

/// Every data set, split and world under both rules, and what always naming the first option would score.
fn report(predictions: &[Prediction]) -> anyhow::Result<String> {
    if predictions.is_empty() {
        bail!("no predictions to score");
    }
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
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldmark::data::EvalRow;

    #[test]
    fn rotations_ask_each_row_as_often_as_it_has_options() {
        let row = |row, options: &[&str]| EvalRow {
            row,
            image_path: "a".into(),
            question: "?".into(),
            options: options.iter().map(|option| (*option).into()).collect(),
            ground_truth: "A".into(),
            super_category: "x".into(),
        };
        let set = EvalSet {
            name: EvalSetName { dataset: "x".into(), split: Split::Seen, super_category: "x".into() },
            rows: vec![row(1, &["A", "B"]), row(2, &["A", "B", "C", "D"])],
        };
        let eval = EvalSection { order: Order::Rotations, ..EvalSection::default() };
        let asked = questions(&eval, set).unwrap();
        let rows: Vec<usize> = asked.iter().map(|question| question.row).collect();
        assert_eq!(rows, [1, 1, 1, 2, 2, 2, 2, 2]);
        let firsts: std::collections::BTreeSet<&str> =
            asked.iter().filter(|q| q.row == 2 && q.world == World::Closed).map(|q| q.options[0].as_str()).collect();
        assert_eq!(firsts.len(), 4);
    }
}
