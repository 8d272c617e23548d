//! `fieldmark sft`: supervised fine-tuning of a checkpoint on conversations with reasoning, the first stage of Fine-R1
//! (arXiv 2602.07605, section 4): the loss is the mean over the tokens of the assistant's turns.

use std::time::Instant;

use anyhow::anyhow;
use fieldmark::{
    generate::StreamKey,
    model::Qwen25Vl,
    progress::Progress,
    train::{
        Best, Checkpoints, LogEnd, Mark, MetricsWriter, SftSource, SftState, SftTrainer, TrainError, Updater,
        stable_param_ids,
    },
};

use super::{
    Outcome, RunArgs, checkpoint,
    conversations::Conversations,
    curve::{series, svg},
    instruments::Instruments,
    keeper::{End, Keeper, Stage, Start},
    resume::{self, Begin},
    say, training,
    training::Prepared,
};

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
    let checkpoint = checkpoint::Checkpoint::open(&recipe.model)?;
    let processor = checkpoint::sized(&checkpoint.processor, recipe.data.sft.sizes, "data.sft.sizes")?;
    let source = Conversations::open(file, &recipe.data, processor, checkpoint.context)?;
    if recipe.data.check && prepared.begin == Begin::Start {
        training::try_samples(source.len(), |row| source.sample(row, 0).map(drop))?;
    }
    let (device, others) = prepared.split_devices();
    let model = stable_param_ids(prepared.load(&checkpoint, &device)?);
    let (pad, streams) = (checkpoint.processor.tokenizer.pad(), StreamKey::new(recipe.seed));
    let mut trainer = SftTrainer::new(&model, &source, recipe.sft.clone(), pad, streams, &device)
        .map_err(in_section)?
        .with_devices(&others);
    let start = Start { folder: checkpoint.folder.clone(), weights: None };
    let mut keeper = Keeper::new(&checkpoint, resume::checkpoints(output), recipe.run, "sft", start);
    let mut end: Option<LogEnd> = None;
    if let Begin::GoOn { folder, mark } = &prepared.begin {
        let state: SftState = keeper.go_on(folder, *mark)?;
        trainer = trainer.restore(&state, &Checkpoints::moments(folder))?;
        end = Some(state.log_end());
    }

    prepared.start()?;
    let interrupt = training::interrupt("update")?;
    let updates = trainer.total();
    let mut stage = Run {
        metrics: prepared.log("metrics.jsonl", end)?,
        instruments: Instruments::open(&prepared, "sft", end)?,
        progress: Progress::new("sft", updates).from(trainer.updater().done()),
        trainer,
    };
    let model = match keeper.train(model, &mut stage, &interrupt)? {
        End::Finished(model) => model,
        End::Interrupted(folder) => {
            let done = format!("update {} of {updates}", stage.done());
            return prepared.interrupted("sft", &done, &folder);
        }
    };
    stage.progress.finish();
    let loss = series(stage.metrics.path(), "step", &[("loss", &["loss"])])?;
    output.write("loss.svg", svg("SFT", "update", "loss (nats a token)", &loss)?.as_bytes())?;
    let saved = checkpoint.save(&model, output)?;
    say(&format!("{updates} updates on {} rows in {}: {}", source.len(), training::elapsed(clock), saved.display()))?;
    Ok(Outcome::Done)
}

/// The trainer and what is written down of it.
struct Run<'a> {
    trainer: SftTrainer<'a, Conversations>,
    metrics: MetricsWriter,
    instruments: Instruments,
    progress: Progress,
}

impl Stage for Run<'_> {
    type State = SftState;

    fn step(&mut self, model: Qwen25Vl) -> Result<Qwen25Vl, TrainError> {
        let Self { trainer, metrics, instruments, progress } = self;
        trainer.step(model, |row, timing| {
            training::note_skipped(progress, row.step, row.grad_norm, row.loss, &row.non_finite);
            progress.step(row.step, format!("loss {:.4}  lr {:.2e}", row.loss, row.lr));
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

    /// The training loss of a batch says nothing of one checkpoint against another.
    fn score(&self) -> Option<Best> {
        None
    }

    fn sync(&self) -> Result<(), TrainError> {
        self.metrics.sync()?;
        self.instruments.sync()
    }
}
