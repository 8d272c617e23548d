//! `fieldmark sft`: supervised fine-tuning of a checkpoint on conversations with reasoning, the first stage of Fine-R1
//! (arXiv 2602.07605, section 4): the loss is the mean over the tokens of the assistant's turns.

use std::time::Instant;

use anyhow::anyhow;
use fieldmark::{
    generate::StreamKey,
    model::Qwen25Vl,
    progress::Progress,
    train::{MetricsWriter, Scorer, SftConfig, SftSource, TrainError, Updater, stable_param_ids, train_sft},
};

use super::{
    Outcome, RunArgs, checkpoint,
    conversations::Conversations,
    curve::{Series, svg},
    say, training,
    training::Prepared,
};

/// Trains and saves.
///
/// # Errors
/// Whatever is wrong with recipe, data or checkpoint, before anything is written.
pub fn run(args: &RunArgs) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let prepared = Prepared::new(args, "sft", |recipe| recipe.sft.validate())?;
    let (recipe, output) = (&prepared.recipe, &prepared.output);
    let file = recipe.data.sft.file.as_ref();
    let file = file.ok_or_else(|| anyhow!("no conversations; name a file with --set data.sft.file=FILE"))?;
    let checkpoint = checkpoint::Checkpoint::open(&recipe.model)?;
    let processor = checkpoint::sized(&checkpoint.processor, recipe.data.sft.sizes, "data.sft.sizes")?;
    let source = Conversations::open(file, &recipe.data, processor, checkpoint.context)?;
    if recipe.data.check {
        training::try_samples(source.len(), |row| source.sample(row, 0).map(drop))?;
    }
    let device = prepared.device.device.clone().autodiff();
    let model = stable_param_ids(checkpoint.load(&device)?);
    let updates = recipe.sft.updates(source.len());
    check_settings(&model, &recipe.sft, updates).map_err(|error| training::in_section("sft", error))?;

    prepared.start()?;
    let mut metrics = MetricsWriter::create(output.file("metrics.jsonl"))?;
    let mut loss = Series::new("loss");
    let progress = Progress::new("sft", updates);
    let streams = StreamKey::new(recipe.seed);
    let pad = checkpoint.processor.tokenizer.pad();
    let model = train_sft(model, &source, &recipe.sft, pad, &streams, &device, |row| {
        loss.points.push((row.step as f64, row.loss));
        progress.step(row.step, format!("loss {:.4}  lr {:.2e}", row.loss, row.lr));
        metrics.write(row)
    });
    let model = model.map_err(|error| training::in_section("sft", error))?;
    progress.finish();
    output.write("loss.svg", svg("SFT", "update", "loss (nats a token)", &[loss])?.as_bytes())?;
    let saved = checkpoint.save(&model, output)?;
    say(&format!("{updates} updates on {} rows in {}: {}", source.len(), training::elapsed(start), saved.display()))?;
    Ok(Outcome::Done)
}

/// Tries what `train_sft` builds from the settings, while nothing is written yet.
fn check_settings(model: &Qwen25Vl, config: &SftConfig, updates: usize) -> Result<(), TrainError> {
    Updater::new(model, config.adamw, config.schedule, config.max_grad_norm, updates)?;
    Scorer::new(config.logit_chunk, 1.0, 0)?;
    Ok(())
}
