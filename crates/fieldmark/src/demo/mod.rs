//! `fieldmark demo`: trains a small reasoning model on photographs and scores it.
//!
//! The model has the architecture of Qwen2.5-VL with 3.3 million parameters and starts from random weights. It is
//! trained on the photographs of the repository: SFT on answers with reasoning, then TAPO on triplets. Both worlds are
//! scored on seen and unseen classes before and after each stage.

mod colours;
mod folder;
mod network;
mod options;
mod produce;
mod requirements;
mod sources;
mod stages;

use burn::module::Module;
use fieldmark_data::Split;
use fieldmark_eval::{Accuracy, Report, Scores, World};
use fieldmark_processor::{DecodeOptions, Photo};
use fieldmark_stream::StreamKey;
use fieldmark_train::tapo::UpdateImage;

pub use options::{DemoOptions, DemoOutcome};
use produce::Produce;
use sources::DemoData;
use stages::Stages;

use crate::{error::RunError, init::NewModel, run::Observer};

pub use requirements::PHOTOGRAPHS;

/// The accuracy that the SFT model must reach on seen classes, in the closed and the open world.
const MARKS: [(World, f64); 2] = [(World::Closed, 0.60), (World::Open, 0.25)];

/// Runs all stages.
///
/// # Errors
/// Returns an error if a photograph or file cannot be read or written, or if the folder holds something that the options
/// do not allow to replace or to resume.
pub fn run(options: &DemoOptions, observer: &mut dyn Observer) -> Result<DemoOutcome, RunError> {
    let folder = folder::check(options)?;
    let produce = Produce::open(&options.photos, options.seed, options.decode)?;
    let NewModel { model, checkpoint } =
        network::shape(produce.seen()).make(&produce.corpus(), options.seed, &options.device)?;
    let key = StreamKey::new(options.seed);
    let data = DemoData { produce: &produce, processor: &checkpoint.processor, key };
    let mut stages = Stages { options, data: &data, device: options.device.clone(), observer };
    stages.introduce(model.num_params())?;
    let _lock = folder::begin(&folder, options, &produce)?;

    let mut report = Report::new();
    report.add("colour histogram", histogram_scores(&produce, &data.key, options.decode)?);
    let base = stages.base(&model)?;
    let stopped = DemoOutcome { stopped: true, ..DemoOutcome::default() };
    let Some(base_scores) = stages.evaluate("base", &base)? else { return Ok(stopped) };
    report.add("base (random weights)", base_scores);
    let Some(sft) = stages.sft(&base)? else { return Ok(stopped) };
    let Some(sft_scores) = stages.evaluate("sft", &sft)? else { return Ok(stopped) };
    let missed = if options.judge { missed_marks(&sft_scores) } else { Vec::new() };
    report.add("SFT", sft_scores);
    let Some(tapo) = stages.tapo("tapo", &sft, UpdateImage::Anchor)? else { return Ok(stopped) };
    let Some(tapo_scores) = stages.evaluate("tapo", &tapo)? else { return Ok(stopped) };
    report.add("SFT + TAPO", tapo_scores);
    if options.ablation {
        let Some(own) = stages.tapo("tapo-own", &sft, UpdateImage::Own)? else { return Ok(stopped) };
        let Some(own_scores) = stages.evaluate("tapo-own", &own)? else { return Ok(stopped) };
        report.add("SFT + TAPO, update_image = own", own_scores);
    }
    report.note(format!(
        "Strict matching, percent with 95 % intervals; greedy decoding; wrong options drawn at random from the other classes \
         of the split and shuffled, seed {}.",
        options.seed
    ));
    report.note(
        "Unseen: no training photograph or text names these classes, so a model trained from nothing has never written them.",
    );
    stages.write_report(&report)?;
    Ok(DemoOutcome { report: report.to_text(), missed, stopped: false })
}

fn missed_marks(scores: &Scores) -> Vec<String> {
    let reached = |world| scores.split(world, Split::Seen).map_or(0.0, |accuracy| accuracy.value);
    MARKS
        .into_iter()
        .filter(|&(world, mark)| reached(world) < mark)
        .map(|(world, mark)| {
            format!("{world} world, seen: {:.1} % after SFT, {:.0} % expected", 100.0 * reached(world), 100.0 * mark)
        })
        .collect()
}

/// Scores of the baseline on seen classes: a nearest neighbour on colour histograms of the same training photographs.
fn histogram_scores(produce: &Produce, key: &StreamKey, decode: DecodeOptions) -> Result<Scores, RunError> {
    use fieldmark_data::ColourHistogram;

    let baseline = produce.histogram_baseline();
    let mut scores = Scores::default();
    // The baseline has no photographs of unseen classes, so their cells stay empty.
    let set = produce.test_set(Split::Seen, key)?;
    let (mut closed, mut open) = (0.0, 0.0);
    for row in &set.rows {
        let photo = Photo::open(produce.folder.root.join(&row.image_path), &decode)?;
        let histogram = ColourHistogram::of(&produce::to_image(&photo)?);
        let hit = |found: Option<&str>| f64::from(u8::from(found == Some(row.ground_truth.as_str())));
        closed += hit(baseline.classify(&histogram, |class| row.options.iter().any(|option| option == class)));
        open += hit(baseline.classify(&histogram, |_| true));
    }
    for (world, right) in [(World::Closed, closed), (World::Open, open)] {
        if let Some(accuracy) = Accuracy::wilson(right, set.rows.len()) {
            scores.insert(world, Split::Seen, &set.name.dataset, accuracy);
        }
    }
    Ok(scores)
}
