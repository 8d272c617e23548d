//! `fieldmark demo`: a base model that knows a world, CoT SFT, then TAPO; scored after each on seen and unseen species,
//! in the closed and the open world. Every stage is a recipe on files in the demo's folder.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use fieldmark_data::Split;
use fieldmark_eval::{Matching, PairedComparison, Prediction, Report, Scores, World as EvalWorld};
use fieldmark_train::trainer::Interrupt;
use fieldmark_world::ExportConfig;
use serde::{Deserialize, Serialize};

use super::{
    guide_folder::{GuideFolder, Reuse, world_of},
    stages::Stages,
};
use crate::{
    error::RunError,
    folder::{Source, weights_fingerprint},
    run::Observer,
};

/// Options of the demo.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// The base model, with the settings of its world ([`super::WORLD`]).
    pub base: PathBuf,
    /// Folder for everything that the demo writes.
    pub out: PathBuf,
    /// What may happen to a folder that is not empty.
    pub reuse: Reuse,
    /// Decides every random number but those that make the species and the base model.
    pub seed: u64,
    /// Test pictures of each species.
    pub pictures: usize,
    /// Epochs of TAPO over the triplets.
    pub tapo_epochs: usize,
    /// The device, instead of the default.
    pub device: Option<String>,
    /// A shared flag that stops the demo after the current step, with a checkpoint.
    pub interrupt: Interrupt,
}

/// How a demo ended.
#[derive(Debug, Clone, Default)]
pub struct DemoOutcome {
    /// The table of scores, for a terminal; empty if the demo was stopped.
    pub table: String,
    /// The report, unless the demo was stopped.
    pub report: Option<PathBuf>,
    /// The folder of the TAPO run, with its metrics.
    pub tapo: PathBuf,
}

/// The options that decide the results.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    seed: u64,
    pictures: usize,
    tapo_epochs: usize,
    /// The content of the base model.
    base: String,
}

/// What the demo writes to its folder, besides its settings.
const NAMES: [&str; 7] = ["world", "eval-base", "sft", "eval-sft", "tapo", "eval-tapo", "report.md"];

/// A model's name in the report, and its answers.
type Answers = (&'static str, Vec<Prediction>);

/// Runs all stages and writes the report.
///
/// # Errors
/// Returns an error if the base model knows no world, if a stage fails, or if the folder holds something that the options
/// do not allow to replace or to resume.
pub fn demo(options: &DemoOptions, observer: &mut dyn Observer) -> Result<DemoOutcome, RunError> {
    let world = world_of(&options.base)?;
    let &DemoOptions { seed, pictures, tapo_epochs, .. } = options;
    let settings = Settings { seed, pictures, tapo_epochs, base: weights_fingerprint(&options.base)? };
    let sources = [Source::model("--base", &options.base)];
    let folder = GuideFolder::open(&options.out, options.reuse, &settings, &sources, |name| NAMES.contains(&name))?;
    let config = ExportConfig { seed, test: pictures, ..ExportConfig::default() };
    let stopped = DemoOutcome { tapo: folder.file("tapo"), ..DemoOutcome::default() };
    let Some(files) = folder.world(&world, &config, "world", &options.interrupt, observer)? else { return Ok(stopped) };
    let stages = Stages { world: files, seed, device: options.device.clone(), interrupt: options.interrupt.clone() };
    let out = |name: &str| folder.file(name);
    let mut answers: Vec<Answers> = Vec::new();
    let mut ask = |name, model: &Path, place: &str, observer: &mut dyn Observer| -> Result<bool, RunError> {
        let found = stages.eval(model, "eval", &out(place), observer)?;
        Ok(found.map(|found| answers.push((name, found))).is_some())
    };
    if !ask("base", &options.base, "eval-base", observer)? {
        return Ok(stopped);
    }
    let Some(sft) = stages.sft(&options.base, "cot.jsonl", &out("sft"), observer)? else { return Ok(stopped) };
    if !ask("CoT SFT", &sft, "eval-sft", observer)? {
        return Ok(stopped);
    }
    let epochs = format!("tapo.epochs={tapo_epochs}");
    let Some(tapo) = stages.tapo(&sft, &[epochs], &out("tapo"), observer)? else { return Ok(stopped) };
    if !ask("CoT SFT + TAPO", &tapo, "eval-tapo", observer)? {
        return Ok(stopped);
    }
    let report = table(&answers);
    let path = folder.write("report.md", markdown(&report, &answers, seed).as_bytes())?;
    Ok(DemoOutcome { table: report.to_text(), report: Some(path), ..stopped })
}

/// The table of scores: strict first, then the released rule.
fn table(answers: &[Answers]) -> Report {
    let mut report = Report::new();
    for (name, answers) in answers {
        report.add(*name, Scores::of(answers, Matching::Strict));
    }
    for (name, answers) in answers {
        report.add(format!("{name}, released rule"), Scores::of(answers, Matching::Official));
    }
    report.note(
        "Percent with 95 % intervals; greedy decoding. Strict, unless the row says otherwise: the answer names the species, \
         and no other.",
    );
    report.note(
        "Unseen: fine-tuning shows no picture of these species, but the base model knows them, as a pre-trained model does.",
    );
    report
}

/// Questions that the report shows with the answers of each model.
const SHOWN: usize = 6;

fn markdown(report: &Report, answers: &[Answers], seed: u64) -> String {
    let mut text = format!("# The Field Guide, seed {seed}\n\n{}\n", report.to_markdown().trim_end());
    if let [.., (before, sft), (after, tapo)] = answers {
        let _ = write!(text, "\n## {after} against {before}, open world\n\n");
        for split in Split::ALL {
            let of = |answers: &[Prediction]| -> Vec<Prediction> {
                let open =
                    |answer: &&Prediction| answer.question.world == EvalWorld::Open && answer.question.split == split;
                answers.iter().filter(open).cloned().collect()
            };
            let found = PairedComparison::of(&of(sft), &of(tapo), Matching::Strict);
            let PairedComparison { both, only_first, only_second, neither, p_value } = found;
            let _ = writeln!(
                text,
                "- {split}: {only_second} questions are right only after TAPO, {only_first} only before; {both} with both, \
                 {neither} with neither. McNemar's exact test: p = {p_value:.1e}."
            );
        }
    }
    let _ = write!(text, "\n## The same questions, asked after each stage\n");
    let Some((_, first)) = answers.first() else { return text };
    let open: Vec<usize> = (0..first.len()).filter(|&row| first[row].question.world == EvalWorld::Open).collect();
    for &row in open.iter().step_by((open.len() / SHOWN).max(1)).take(SHOWN) {
        let question = &first[row].question;
        let _ = write!(
            text,
            "\n### {} ({}, {})\n\n![{}](world/{})\n",
            question.ground_truth, question.super_category, question.split, question.ground_truth, question.image_path
        );
        for (name, answers) in answers {
            let mark = if Matching::Strict.is_right(&answers[row]) { "right" } else { "wrong" };
            let _ = write!(text, "\n{name}, {mark}:\n\n```text\n{}\n```\n", answers[row].output.trim_end());
        }
    }
    text
}
