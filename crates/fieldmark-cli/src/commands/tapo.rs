//! `fieldmark tapo`: triplet-augmented policy optimisation of a checkpoint (arXiv 2602.07605, section 4.3).

use std::{collections::BTreeMap, iter, path::Path, time::Instant};

use fieldmark::{
    model::Qwen25Vl,
    stream::StreamKey,
    train::{
        Best, Checkpoints, LogEnd, Mark, TapoState, TapoTrainer, TrainError, TripletSource, Updater, stable_param_ids,
        weights_fingerprint,
    },
};

use super::{
    Outcome, RunArgs,
    checkpoint::{self, Checkpoint},
    curve::{Series, series, svg},
    display::Course,
    instruments::Instruments,
    interrupt::Listener,
    keeper::{End, Keeper, Stage, Start},
    resume::{self, Begin},
    rewards, say,
    tapo_log::Log,
    training,
    training::Prepared,
    triplets::Triplets,
};

/// What the best checkpoint is best in.
const BEST: &str = "mean reward of the rollouts drawn from it";
const BEST_HELD_OUT: &str = "mean reward on the validation set";

/// Trains and saves.
///
/// # Errors
/// Whatever is wrong with recipe, data or checkpoint, before anything is written.
pub fn run(args: &RunArgs) -> anyhow::Result<Outcome> {
    let clock = Instant::now();
    let prepared = Prepared::new(args, "tapo", |recipe| {
        recipe.tapo.validate()?;
        rewards::names(recipe)
    })?;
    let (recipe, output) = (&prepared.recipe, &prepared.output);
    rewards::encoder(recipe)?;
    let in_section = |error| training::in_section("tapo", error);
    if prepared.begin == Begin::Finished {
        return prepared.finished();
    }
    let checkpoint = Checkpoint::open(&recipe.model)?.with_lora(&recipe.lora);
    let processor = checkpoint::sized(&checkpoint.processor, recipe.data.tapo.sizes, "data.tapo.sizes")?;
    let (device, others) = prepared.split_devices();
    let registry = rewards::registry(recipe, &device)?;
    let mut source = Triplets::open(recipe, processor, checkpoint.context)?;
    let held = source.validation(recipe)?;
    if recipe.data.check && prepared.begin == Begin::Start {
        let sets: Vec<_> = iter::once(&source).chain(&held).collect();
        let rows: Vec<_> = sets.into_iter().flat_map(|set| (0..set.len()).map(move |row| (set, row))).collect();
        training::try_samples(rows.len(), |row| rows[row].0.prompt(rows[row].1, 0).map(drop))?;
    }
    let model = stable_param_ids(prepared.load(&checkpoint, &device)?);
    let mut trainer = TapoTrainer::new(
        &model,
        &source,
        &checkpoint.processor.tokenizer,
        checkpoint.eos.clone(),
        recipe.tapo.clone(),
        &registry,
        StreamKey::new(recipe.seed),
        &device,
    )
    .map_err(in_section)?
    .with_devices(&others, prepared.reduction);
    if let Some(rows) = &held {
        trainer = trainer.with_validation(rows);
    }
    let needs_start = recipe.tapo.loss.kl_ref != 0.0;
    let weights = (needs_start || recipe.lora.is_on()).then(|| weights_fingerprint(&checkpoint.folder)).transpose()?;
    let start = Start { folder: checkpoint.folder.clone(), weights };
    let mut keeper = Keeper::new(&checkpoint, resume::checkpoints(output), recipe.run, "tapo", start);
    let mut end: Option<LogEnd> = None;
    if let Begin::GoOn { folder, mark } = &prepared.begin {
        let state: TapoState = keeper.go_on(folder, *mark)?;
        trainer = trainer.restore(&state, &Checkpoints::moments(folder))?;
        if needs_start {
            trainer = trainer.with_reference(&prepared.load_start(&checkpoint, &device)?);
        }
        end = Some(state.log_end());
    }

    let _lock = prepared.start()?;
    prepared.note_trainable(&model);
    let mut listener = Listener::new("rollout step")?;
    let steps = trainer.steps();
    let course = Course::tapo(steps, recipe.tapo.updates_per_step(), trainer.done());
    let instruments = Instruments::open(&prepared, "tapo", end, course, &mut listener)?;
    let mut stage =
        Run { log: Log::open(&prepared, &source, held.as_ref(), instruments, end)?, held_out: held.is_some(), trainer };
    let model = match keeper.train(model, &mut stage, listener.interrupt())? {
        End::Finished(model) => model,
        End::Interrupted(folder) => {
            stage.log.instruments.display.close();
            let done = format!("rollout step {} of {steps}", stage.done());
            return prepared.interrupted("tapo", &done, &folder);
        }
    };
    stage.log.instruments.display.finish();
    let log = &stage.log;
    let curves = curves(log.metrics.path(), &recipe.tapo.rewards, held.is_some())?;
    output.write("reward.svg", svg("TAPO", "rollout step", "mean", &curves)?.as_bytes())?;
    let saved = checkpoint.save(&model, output)?;
    say(&format!("{steps} steps on {} triplets in {}: {}", source.len(), training::elapsed(clock), saved.display()))?;
    if let Some((best, folder)) = keeper.best().filter(|_| held.is_some()) {
        say(&format!("highest validation reward {:.4}: {}", best.value, folder.display()))?;
    }
    Ok(Outcome::Done)
}

/// The mean reward, accuracy by image, each reward, and what the validation set says.
fn curves(metrics: &Path, rewards: &BTreeMap<String, f64>, held: bool) -> anyhow::Result<Vec<Series>> {
    let held_out: [(&str, &[&str]); 2] =
        [("validation reward", &["val_reward"]), ("validation accuracy", &["val_accuracy"])];
    let means: [(&str, &[&str]); 3] = [
        ("reward", &["reward"]),
        ("accuracy, anchor", &["accuracy_anchor"]),
        ("accuracy, positive", &["accuracy_positive"]),
    ];
    let parts: Vec<(&str, [&str; 2])> = rewards.keys().map(|name| (name.as_str(), ["rewards", name])).collect();
    let held_out = held_out.into_iter().filter(|_| held);
    let lines: Vec<_> =
        means.into_iter().chain(parts.iter().map(|(name, keys)| (*name, &keys[..]))).chain(held_out).collect();
    series(metrics, "rollout_step", &lines)
}

/// The trainer and what is written down of it.
struct Run<'a> {
    trainer: TapoTrainer<'a, Triplets>,
    log: Log<'a>,
    /// Whether there is a validation set.
    held_out: bool,
}

impl Stage for Run<'_> {
    type State = TapoState;

    fn scores_itself(&self) -> bool {
        self.held_out
    }

    fn step(&mut self, model: Qwen25Vl) -> Result<Qwen25Vl, TrainError> {
        let Self { trainer, log, .. } = self;
        log.begin(trainer.done());
        let model = trainer.step(model, |event| log.event(event))?;
        log.instruments.display.step(trainer.done(), 0, log.message());
        Ok(model)
    }

    fn done(&self) -> usize {
        self.trainer.done()
    }

    fn is_finished(&self) -> bool {
        self.trainer.is_finished()
    }

    fn fault(&self) -> Option<TrainError> {
        self.trainer.fault()
    }

    fn state(&self) -> (Mark, TapoState) {
        let state = self.trainer.state();
        (Mark { step: state.step, updates: state.open.as_ref().map_or(0, |open| open.updates) }, state)
    }

    fn updater(&self) -> &Updater {
        self.trainer.updater()
    }

    /// What the validation set says of the model; without one, what the step's rollouts said of the checkpoint that they
    /// were drawn from.
    fn score(&self) -> Option<Best> {
        let (metric, (value, step)) = if self.held_out {
            (BEST_HELD_OUT, (self.log.validated()?, self.trainer.done()))
        } else {
            (BEST, self.log.reward()?)
        };
        Some(Best { metric: metric.into(), value, mark: Mark { step, updates: 0 } })
    }

    fn is_better(score: f64, than: f64) -> bool {
        score > than
    }

    fn sync(&self) -> Result<(), TrainError> {
        self.log.sync()
    }
}
