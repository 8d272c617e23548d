//! `fieldmark demo --full`: every arm with several seeds, one table with paired tests. A cell is one arm with one
//! seed; cells that are finished are not run again, so that a study may take several nights.

use std::{collections::BTreeMap, path::PathBuf};

use fieldmark_data::Split;
use fieldmark_eval::{Matching, MeanOverSeeds, PairedTest, Prediction, Scores, TextTable, World as EvalWorld};
use fieldmark_train::trainer::Interrupt;
use fieldmark_world::{ExportConfig, World};
use serde::{Deserialize, Serialize};

use super::{
    arms::{ARMS, Arm, DIVE_K, TAPO},
    guide_folder::{GuideFolder, Reuse, world_of},
    stages::{Stages, set},
};
use crate::{
    error::RunError,
    folder::{Source, weights_fingerprint},
    run::{Observer, RunEvent},
};

/// Options of a study.
#[derive(Debug, Clone)]
pub struct StudyOptions {
    /// The base model, with the settings of its world.
    pub base: PathBuf,
    /// Folder for everything that the study writes.
    pub out: PathBuf,
    /// What may happen to a folder that is not empty.
    pub reuse: Reuse,
    /// The first seed; the others follow it.
    pub seed: u64,
    /// Number of seeds.
    pub seeds: usize,
    /// The arms by name; empty for all.
    pub arms: Vec<String>,
    /// Test pictures of each species.
    pub pictures: usize,
    /// Epochs of TAPO over the triplets.
    pub tapo_epochs: usize,
    /// The device, instead of the default.
    pub device: Option<String>,
    /// A shared flag that stops the study after the current step, with a checkpoint.
    pub interrupt: Interrupt,
}

/// How a study ended.
#[derive(Debug, Clone, Default)]
pub struct StudyOutcome {
    /// The table so far, for a terminal.
    pub table: String,
    /// The report so far.
    pub report: PathBuf,
    /// Whether it was stopped before the last cell.
    pub stopped: bool,
}

/// The options that decide the results of a cell. Seeds and arms may be added.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    pictures: usize,
    tapo_epochs: usize,
    /// The content of the base model.
    base: String,
}

/// Accuracies by arm and seed.
type Found = BTreeMap<(&'static str, u64), Scores>;

/// The columns of the table.
const COLUMNS: [(EvalWorld, Split); 4] = [
    (EvalWorld::Open, Split::Unseen),
    (EvalWorld::Open, Split::Seen),
    (EvalWorld::Closed, Split::Unseen),
    (EvalWorld::Closed, Split::Seen),
];

/// Runs the cells that are missing. The report is written again after each.
///
/// # Errors
/// Returns an error if there is no such arm, if the base model knows no world, or if a stage fails.
pub fn study(options: &StudyOptions, observer: &mut dyn Observer) -> Result<StudyOutcome, RunError> {
    let arms = chosen(&options.arms)?;
    let world = world_of(&options.base)?;
    let settings = Settings {
        pictures: options.pictures,
        tapo_epochs: options.tapo_epochs,
        base: weights_fingerprint(&options.base)?,
    };
    let folder =
        GuideFolder::open(&options.out, options.reuse, &settings, &[Source::model("--base", &options.base)], is_ours)?;
    let mut found = Found::new();
    let mut stopped = false;
    'cells: for seed in options.seed..options.seed + options.seeds as u64 {
        for arm in &arms {
            let Some(answers) = cell(options, &folder, &world, arm, seed, observer)? else {
                stopped = true;
                break 'cells;
            };
            found.insert((arm.name, seed), Scores::of(&answers, Matching::Strict));
            folder.write("report.md", markdown(&arms, &found, &table(&arms, &found)).as_bytes())?;
        }
    }
    Ok(StudyOutcome { table: table(&arms, &found).to_text(), report: folder.file("report.md"), stopped })
}

/// Whether a study writes something with this name: `report.md`, `seed-3` and `seed-3-world`.
fn is_ours(name: &str) -> bool {
    let seed = name.strip_prefix("seed-").map(|rest| rest.strip_suffix("-world").unwrap_or(rest));
    name == "report.md" || seed.is_some_and(|seed| seed.parse::<u64>().is_ok())
}

fn chosen(names: &[String]) -> Result<Vec<Arm>, RunError> {
    if let Some(name) = names.iter().find(|name| !ARMS.iter().any(|arm| arm.name == **name)) {
        let known: Vec<&str> = ARMS.iter().map(|arm| arm.name).collect();
        let problem = format!("is no arm; the arms are {}", known.join(", "));
        return Err(RunError::Setting { key: "--arms".into(), value: name.clone(), problem });
    }
    Ok(ARMS.into_iter().filter(|arm| names.is_empty() || names.iter().any(|name| name == arm.name)).collect())
}

/// Trains and asks one arm with one seed. Returns its answers, or `None` if it was stopped.
fn cell(
    options: &StudyOptions,
    folder: &GuideFolder,
    world: &World,
    arm: &Arm,
    seed: u64,
    observer: &mut dyn Observer,
) -> Result<Option<Vec<Prediction>>, RunError> {
    let place = format!("seed-{seed}");
    let out = |name: &str| folder.file(&place).join(name);
    std::fs::create_dir_all(folder.file(&place)).map_err(RunError::io(folder.file(&place)))?;
    let config = ExportConfig { seed, test: options.pictures, ..ExportConfig::default() };
    let name = format!("{place}-world");
    let Some(files) = folder.world(world, &config, &name, &options.interrupt, observer)? else { return Ok(None) };
    let stages = Stages { world: files, seed, device: options.device.clone(), interrupt: options.interrupt.clone() };
    observer.event(RunEvent::Note(&format!("seed {seed}: {}", arm.title)))?;
    let mut model: PathBuf = options.base.clone();
    if let Some((name, rows)) = arm.first.stage() {
        let Some(trained) = stages.sft(&model, rows, &out(name), observer)? else { return Ok(None) };
        model = trained;
    }
    if let Some(settings) = arm.second {
        let mut settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        settings.push(format!("tapo.epochs={}", options.tapo_epochs));
        if arm.name == DIVE_K {
            let Some(rows) = stages.confusions(&model, &out("confusions"), observer)? else { return Ok(None) };
            settings.push(set("data.tapo.file", &rows));
        }
        let run = out(arm.name);
        let Some(trained) = stages.tapo(&model, &settings, &run, observer)? else { return Ok(None) };
        model = trained;
    }
    stages.eval(&model, "eval", &out(&format!("eval-{}", arm.name)), observer)
}

/// The accuracies of an arm in a column, by seed.
fn values(found: &Found, arm: &str, (world, split): (EvalWorld, Split)) -> BTreeMap<u64, f64> {
    let of = found.iter().filter(|((name, _), _)| *name == arm);
    of.filter_map(|((_, seed), scores)| Some((*seed, 100.0 * scores.split(world, split)?.value))).collect()
}

/// The paired test of two arms over the seeds that both have.
fn paired(found: &Found, first: &str, second: &str, column: (EvalWorld, Split)) -> Option<PairedTest> {
    let (first, second) = (values(found, first, column), values(found, second, column));
    let pairs: Vec<(f64, f64)> = first.iter().filter_map(|(seed, &one)| Some((one, *second.get(seed)?))).collect();
    PairedTest::of(&pairs)
}

fn table(arms: &[Arm], found: &Found) -> TextTable {
    let heads = COLUMNS.map(|(world, split)| format!("{world}, {split}"));
    let header = ["strict, %".to_owned()].into_iter().chain(heads).chain(["seeds".into(), "p against TAPO".into()]);
    let row = |arm: &Arm| {
        let cells = COLUMNS.map(|column| {
            let values: Vec<f64> = values(found, arm.name, column).into_values().collect();
            MeanOverSeeds::of(&values).map_or("–".into(), |found| match found.deviation {
                Some(deviation) => format!("{:.1} ± {deviation:.1}", found.mean),
                None => format!("{:.1}", found.mean),
            })
        });
        let seeds = values(found, arm.name, COLUMNS[0]).len().to_string();
        let test = paired(found, TAPO, arm.name, COLUMNS[0]).filter(|_| arm.name != TAPO);
        let p = test.map_or("–".into(), |test| format!("{:.3}", test.p_value));
        std::iter::once(arm.title.to_owned()).chain(cells).chain([seeds, p]).collect()
    };
    TextTable { header: header.collect(), rows: arms.iter().map(row).collect() }
}

/// The orderings that the paper reports: first, second, and in which column the second is said to be better.
const CLAIMS: [(&str, &str, (EvalWorld, Split), &str); 9] = [
    ("base", "direct", (EvalWorld::Open, Split::Seen), "direct-answer SFT gains on seen species"),
    ("direct", "base", (EvalWorld::Open, Split::Unseen), "direct-answer SFT loses on unseen species"),
    ("rl", TAPO, (EvalWorld::Open, Split::Unseen), "RL without CoT SFT is below TAPO on unseen species"),
    ("rl", TAPO, (EvalWorld::Open, Split::Seen), "RL without CoT SFT is below TAPO on seen species"),
    ("cot", TAPO, (EvalWorld::Open, Split::Unseen), "TAPO is above CoT SFT on unseen species"),
    ("dapo", TAPO, (EvalWorld::Open, Split::Unseen), "TAPO is above DAPO on unseen species"),
    ("dapo", TAPO, (EvalWorld::Open, Split::Seen), "TAPO is above DAPO on seen species"),
    ("inter", TAPO, (EvalWorld::Open, Split::Unseen), "5:5 is above 10:0 on unseen species"),
    ("0-10", TAPO, (EvalWorld::Open, Split::Unseen), "5:5 is above 0:10 on unseen species"),
];

fn markdown(arms: &[Arm], found: &Found, table: &TextTable) -> String {
    let mut text = format!("# The Field Guide: a study\n\n{}\n\n", table.to_markdown().trim_end());
    text += "Mean and standard deviation over the seeds; strict; greedy decoding. The last column is Student's paired t-test \
             over seeds against TAPO, on unseen species in the open world. Each test stands alone: p is not corrected for \
             their number.\n\n## What the paper says, and what was found\n\n";
    let known = |name: &str| arms.iter().any(|arm| arm.name == name);
    for (first, second, column, claim) in CLAIMS.iter().filter(|(first, second, ..)| known(first) && known(second)) {
        let line = match paired(found, first, second, *column) {
            Some(PairedTest { difference, p_value, pairs }) => {
                let verdict = match (difference > 0.0, p_value < 0.05) {
                    (true, true) => "found",
                    (false, true) => "the opposite was found",
                    (_, false) => "not decided",
                };
                format!("{verdict}: {difference:+.1} points, p = {p_value:.3}, {pairs} seeds")
            }
            None => "needs two seeds".into(),
        };
        text += &format!("- {claim}: {line}.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use fieldmark_eval::Accuracy;

    use super::*;

    fn scores(open_unseen: f64) -> Scores {
        let mut scores = Scores::default();
        let questions = 1000;
        for (world, split) in COLUMNS {
            let share = if (world, split) == COLUMNS[0] { open_unseen } else { 0.5 };
            if let Some(accuracy) = Accuracy::wilson(share * questions as f64, questions) {
                scores.insert(world, split, "bird", accuracy);
            }
        }
        scores
    }

    #[test]
    fn the_table_has_means_over_seeds_and_tests_against_tapo() {
        let arms = chosen(&["cot".into(), "tapo".into()]).unwrap();
        let mut found = Found::new();
        for (seed, (cot, tapo)) in [(0.60, 0.90), (0.70, 0.91), (0.65, 0.95)].into_iter().enumerate() {
            found.insert(("cot", seed as u64), scores(cot));
            found.insert(("tapo", seed as u64), scores(tapo));
        }
        let table = table(&arms, &found);
        assert_eq!(table.rows[0][..3], ["CoT SFT", "65.0 ± 5.0", "50.0 ± 0.0"]);
        // The differences 30, 21 and 30: mean 27, deviation 5.196, t = 9, and P(|T| > t) = 1 - t / sqrt(t^2 + 2).
        assert_eq!(table.rows[0][6], "0.012");
        assert_eq!(table.rows[1][6], "–");
        let text = markdown(&arms, &found, &table);
        assert!(
            text.contains("TAPO is above CoT SFT on unseen species: found: +27.0 points, p = 0.012, 3 seeds"),
            "{text}"
        );
        assert!(!text.contains("DAPO"));
    }

    #[test]
    fn an_unknown_arm_is_refused_with_the_known_ones() {
        let error = chosen(&["sapo?".into()]).unwrap_err().to_string();
        assert!(error.contains("--arms") && error.contains("dapo"), "{error}");
        assert_eq!(chosen(&[]).unwrap().len(), ARMS.len());
    }
}
