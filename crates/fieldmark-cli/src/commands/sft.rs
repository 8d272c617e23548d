//! `fieldmark sft`: supervised fine-tuning of a checkpoint on conversations with reasoning, the first stage of Fine-R1
//! (arXiv 2602.07605, section 4): the loss is the mean over the tokens of the assistant's turns.

use std::{iter, path::Path, time::Instant};

use anyhow::anyhow;
use fieldmark::{
    data::DataError,
    model::Qwen25Vl,
    recipe::SftData,
    stream::StreamKey,
    train::{
        Best, Checkpoints, LogEnd, Mark, MetricsWriter, SftSource, SftState, SftTrainer, TrainError, Updater,
        Validation, stable_param_ids, weights_fingerprint,
    },
};

use super::{
    Outcome, RunArgs, checkpoint,
    conversations::Conversations,
    curve::{series, svg},
    display::Course,
    held_out::HeldOut,
    instruments::Instruments,
    interrupt::Listener,
    keeper::{End, Keeper, Stage, Start},
    resume::{self, Begin},
    say, training,
    training::Prepared,
};

/// What the best checkpoint is best in.
const BEST: &str = "loss on the validation set";

/// Trains and saves.
///
/// # Errors
/// Whatever is wrong with recipe, data or checkpoint, before anything is written.
pub fn run(args: &RunArgs) -> anyhow::Result<Outcome> {
    let clock = Instant::now();
    let prepared = Prepared::new(args, "sft", |recipe| recipe.sft.validate())?;
    let (recipe, output) = (&prepared.recipe, &prepared.output);
    let in_section = |error| training::in_section("sft", error);
    if prepared.begin == Begin::Finished {
        return prepared.finished();
    }
    let file = recipe.data.sft.file.as_ref();
    let file = file.ok_or_else(|| anyhow!("no conversations; name a file with --set data.sft.file=FILE"))?;
    let checkpoint = checkpoint::Checkpoint::open(&recipe.model)?.with_lora(&recipe.lora);
    let processor = checkpoint::sized(&checkpoint.processor, recipe.data.sft.sizes, "data.sft.sizes")?;
    let streams = StreamKey::new(recipe.seed);
    let open = |file: &Path| Conversations::open(file, &recipe.data, processor.clone(), checkpoint.context);
    let mut source = open(file)?;
    let validation = validation(&recipe.data.sft, &mut source, &streams, open)?;
    if recipe.data.check && prepared.begin == Begin::Start {
        let sets: Vec<_> = iter::once(&source).chain(&validation).collect();
        let rows: Vec<_> = sets.into_iter().flat_map(|set| (0..set.len()).map(move |row| (set, row))).collect();
        training::try_samples(rows.len(), |row| rows[row].0.sample(rows[row].1, 0).map(drop))?;
    }
    let (device, others) = prepared.split_devices();
    let model = stable_param_ids(prepared.load(&checkpoint, &device)?);
    let pad = checkpoint.processor.tokenizer.pad();
    let mut trainer = SftTrainer::new(&model, &source, recipe.sft.clone(), pad, streams, &device)
        .map_err(in_section)?
        .with_devices(&others, prepared.reduction);
    if let Some(rows) = &validation {
        trainer = trainer.with_validation(rows);
    }
    let weights = recipe.lora.is_on().then(|| weights_fingerprint(&checkpoint.folder)).transpose()?;
    let start = Start { folder: checkpoint.folder.clone(), weights };
    let mut keeper = Keeper::new(&checkpoint, resume::checkpoints(output), recipe.run, "sft", start);
    let mut end: Option<LogEnd> = None;
    if let Begin::GoOn { folder, mark } = &prepared.begin {
        let state: SftState = keeper.go_on(folder, *mark)?;
        trainer = trainer.restore(&state, &Checkpoints::moments(folder))?;
        end = Some(state.log_end());
    }

    let _lock = prepared.start()?;
    prepared.note_trainable(&model);
    let mut listener = Listener::new("update")?;
    let updates = trainer.total();
    let course = Course::sft(recipe.sft.epochs, updates, trainer.updater().done());
    let mut stage = Run {
        metrics: prepared.log("metrics.jsonl", end)?,
        instruments: Instruments::open(&prepared, "sft", end, course, &mut listener)?,
        validation: None,
        trainer,
    };
    let model = match keeper.train(model, &mut stage, listener.interrupt())? {
        End::Finished(model) => model,
        End::Interrupted(folder) => {
            stage.instruments.display.close();
            let done = format!("update {} of {updates}", stage.done());
            return prepared.interrupted("sft", &done, &folder);
        }
    };
    stage.instruments.display.finish();
    let lines: [(&str, &[&str]); 2] = [("loss", &["loss"]), ("validation loss", &["val_loss"])];
    let loss = series(stage.metrics.path(), "step", &lines[..1 + usize::from(validation.is_some())])?;
    output.write("loss.svg", svg("SFT", "update", "loss (nats a token)", &loss)?.as_bytes())?;
    let saved = checkpoint.save(&model, output)?;
    say(&format!("{updates} updates on {} rows in {}: {}", source.len(), training::elapsed(clock), saved.display()))?;
    if let Some((best, folder)) = keeper.best() {
        say(&format!("lowest validation loss {:.4}: {}", best.value, folder.display()))?;
    }
    Ok(Outcome::Done)
}

/// The rows to validate on: a file of their own, or rows taken from `source`.
fn validation(
    data: &SftData,
    source: &mut Conversations,
    streams: &StreamKey,
    open: impl Fn(&Path) -> Result<Conversations, DataError>,
) -> anyhow::Result<Option<Conversations>> {
    let all = format!("the file's {} rows", source.len());
    match HeldOut::of("data.sft", data.validation.as_deref(), data.validation_rows, source.len(), &all)? {
        HeldOut::Nowhere => Ok(None),
        HeldOut::File(file) => Ok(Some(open(file)?)),
        HeldOut::Rows(rows) => Ok(Some(source.hold_out(rows, &mut streams.word("sft").word("validation").stream()))),
    }
}

/// The trainer and what is written down of it.
struct Run<'a> {
    trainer: SftTrainer<'a, Conversations>,
    metrics: MetricsWriter,
    instruments: Instruments,
    /// Of the last update.
    validation: Option<Validation>,
}

impl Stage for Run<'_> {
    type State = SftState;

    fn scores_itself(&self) -> bool {
        true
    }

    fn step(&mut self, model: Qwen25Vl) -> Result<Qwen25Vl, TrainError> {
        let Self { trainer, metrics, instruments, validation } = self;
        trainer.step(model, |row, timing| {
            let display = &mut instruments.display;
            training::note_skipped(display, row.step, row.grad_norm, row.loss, &row.non_finite);
            *validation = row.validation;
            let held = row.validation.map(|found| format!("  validation {:.4}", found.loss));
            let held = held.unwrap_or_default();
            display.step(row.step, 0, format!("loss {:.4}  lr {:.2e}{held}", row.loss, row.lr));
            metrics.write(row)?;
            instruments.update(row, timing)
        })
    }

    fn done(&self) -> usize {
        self.trainer.updater().done()
    }

    fn is_finished(&self) -> bool {
        self.trainer.is_finished()
    }

    fn fault(&self) -> Option<TrainError> {
        self.trainer.fault()
    }

    fn state(&self) -> (Mark, SftState) {
        let state = self.trainer.state();
        (Mark { step: state.updates.done, updates: 0 }, state)
    }

    fn updater(&self) -> &Updater {
        self.trainer.updater()
    }

    /// The loss of a batch says nothing of one model against another; that of the validation set does. A skipped update has
    /// left the model as it was.
    fn score(&self) -> Option<Best> {
        let loss = self.validation.map(|found| found.loss).filter(|loss| loss.is_finite())?;
        let (mark, _) = self.state();
        (mark.step == self.done()).then(|| Best { metric: BEST.into(), value: loss, mark })
    }

    fn is_better(score: f64, than: f64) -> bool {
        score < than
    }

    fn sync(&self) -> Result<(), TrainError> {
        self.metrics.sync()?;
        self.instruments.sync()
    }
}
