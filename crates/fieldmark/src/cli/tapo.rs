//! `fieldmark tapo`: triplet-augmented policy optimisation of a checkpoint (arXiv 2602.07605, section 4.3).

use std::{collections::BTreeMap, path::Path, time::Instant};

use fieldmark::{
    generate::{FinishReason, StreamKey},
    model::Qwen25Vl,
    train::{
        Best, Checkpoints, Group, LogEnd, Mark, MetricsWriter, Role, RolloutMetrics, TapoEvent, TapoState, TapoTrainer,
        TrainError, TripletSource, Updater, stable_param_ids, weights_fingerprint,
    },
};
use serde_json::{Value, json};

use super::{
    Outcome, RunArgs,
    checkpoint::{self, Checkpoint},
    curve::{Series, series, svg},
    display::Course,
    instruments::Instruments,
    interrupt::Listener,
    keeper::{End, Keeper, Stage, Start},
    resume::{self, Begin},
    rewards, say, training,
    training::Prepared,
    triplets::Triplets,
};

/// What the best checkpoint is best in.
const BEST: &str = "mean reward of the rollouts drawn from it";

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
    let source = Triplets::open(recipe, processor, checkpoint.context)?;
    if recipe.data.check && prepared.begin == Begin::Start {
        training::try_samples(source.len(), |row| source.prompt(row, 0).map(drop))?;
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
    let mut stage = Run {
        log: Log {
            source: &source,
            metrics: prepared.log("metrics.jsonl", end)?,
            instruments: Instruments::open(&prepared, "tapo", end, course, &mut listener)?,
            rollouts: prepared.log("rollouts.jsonl", end)?,
            step: trainer.done() + 1,
            updates: 0,
            over_step: recipe.tapo.estimator.is_over_step(),
            drawn: String::new(),
            update: String::new(),
            reward: f64::NAN,
        },
        trainer,
    };
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
    let curves = curves(log.metrics.path(), &recipe.tapo.rewards)?;
    output.write("reward.svg", svg("TAPO", "rollout step", "mean", &curves)?.as_bytes())?;
    let saved = checkpoint.save(&model, output)?;
    say(&format!("{steps} steps on {} triplets in {}: {}", source.len(), training::elapsed(clock), saved.display()))?;
    Ok(Outcome::Done)
}

/// The mean reward, accuracy by image, and each reward.
fn curves(metrics: &Path, rewards: &BTreeMap<String, f64>) -> anyhow::Result<Vec<Series>> {
    let means: [(&str, &[&str]); 3] = [
        ("reward", &["reward"]),
        ("accuracy, anchor", &["accuracy_anchor"]),
        ("accuracy, positive", &["accuracy_positive"]),
    ];
    let parts: Vec<(&str, [&str; 2])> = rewards.keys().map(|name| (name.as_str(), ["rewards", name])).collect();
    let lines: Vec<_> = means.into_iter().chain(parts.iter().map(|(name, keys)| (*name, &keys[..]))).collect();
    series(metrics, "rollout_step", &lines)
}

/// The trainer and what is written down of it.
struct Run<'a> {
    trainer: TapoTrainer<'a, Triplets>,
    log: Log<'a>,
}

impl Stage for Run<'_> {
    type State = TapoState;

    const SCORES_ITSELF: bool = false;

    fn step(&mut self, model: Qwen25Vl) -> Result<Qwen25Vl, TrainError> {
        let Self { trainer, log } = self;
        log.step = trainer.done() + 1;
        log.updates = 0;
        // A step that a checkpoint left open drew its rollouts before.
        log.reward = f64::NAN;
        log.phase("rollouts");
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

    /// A step's rollouts are drawn from the checkpoint before it.
    fn score(&self) -> Option<Best> {
        let mark = Mark { step: self.log.step - 1, updates: 0 };
        self.log.reward.is_finite().then(|| Best { metric: BEST.into(), value: self.log.reward, mark })
    }

    fn is_better(score: f64, than: f64) -> bool {
        score > than
    }

    fn sync(&self) -> Result<(), TrainError> {
        self.log.metrics.sync()?;
        self.log.instruments.sync()?;
        self.log.rollouts.sync()
    }
}

/// Writes down what happens.
struct Log<'a> {
    source: &'a Triplets,
    metrics: MetricsWriter,
    instruments: Instruments,
    rollouts: MetricsWriter,
    /// The step that is being made, from 1.
    step: usize,
    /// Updates made in it.
    updates: usize,
    /// Whether advantages are not known yet when rollouts are written.
    over_step: bool,
    /// How the step's rollouts went, and how its last update.
    drawn: String,
    update: String,
    /// Mean reward of the rollouts that it drew; NaN if it drew none.
    reward: f64,
}

impl Log<'_> {
    fn event(&mut self, event: TapoEvent<'_>) -> Result<(), TrainError> {
        match event {
            TapoEvent::Rollouts(groups) => {
                self.instruments.display.count("Groups drawn", groups.len());
                groups.iter().try_for_each(|group| self.group(group))
            }
            TapoEvent::Drawn(row, timing) => {
                self.drawn(row);
                self.phase("updates");
                self.metrics.write(row)?;
                self.instruments.rollouts(row, timing)
            }
            TapoEvent::Validation(..) => Ok(()),
            TapoEvent::Update(row, timing) => {
                let display = &mut self.instruments.display;
                training::note_skipped(display, row.step, row.grad_norm, row.parts.loss, &row.non_finite);
                self.update = format!("  loss {:.4}  lr {:.2e}", row.parts.loss, row.lr);
                self.updates += 1;
                self.instruments.display.step(row.rollout_step - 1, self.updates, self.message());
                self.metrics.write(row)?;
                self.instruments.update(row, timing)
            }
        }
    }

    fn drawn(&mut self, row: &RolloutMetrics) {
        self.reward = row.reward;
        // Means over nothing are not numbers: of a role without rollouts, or of all in a step that surplus groups fill.
        let right: Vec<f64> =
            [row.accuracy_anchor, row.accuracy_positive].into_iter().filter(|share| share.is_finite()).collect();
        self.update.clear();
        self.drawn = if right.is_empty() {
            format!("{} groups from the step before", row.groups.carried_in)
        } else {
            let share = right.iter().sum::<f64>() / right.len() as f64;
            format!("reward {:.3}  right {share:.2}  kept {}/{}", row.reward, row.groups.kept, row.groups.offered)
        };
        self.instruments.display.step(row.rollout_step - 1, 0, self.message());
    }

    fn phase(&self, phase: &str) {
        self.instruments.display.phase(&format!("step {}: {phase}", self.step));
    }

    fn message(&self) -> String {
        format!("{}{}", self.drawn, self.update)
    }

    /// One line a response: what was shown, what was said, what it was worth.
    fn group(&mut self, group: &Group) -> Result<(), TrainError> {
        let row = self.source.row_of(&group.prompt);
        for rollout in &group.rollouts {
            let (role, image) = match rollout.role {
                Role::Anchor => ("anchor", row.map(|row| &row.anchor)),
                Role::Positive => ("positive", row.and_then(|row| row.positive.as_ref())),
            };
            let line: Value = json!({
                "rollout_step": self.step,
                "row": group.prompt.anchor.name,
                "role": role,
                "image": image,
                "negative": row.and_then(|row| row.negative.as_ref()),
                "prompt": row.map(|row| &row.prompt),
                "truth": group.prompt.truth,
                "response": rollout.text,
                "tokens": rollout.response.ids.len(),
                "finished": rollout.response.finish == FinishReason::Stop,
                "rewards": rollout.reward.parts,
                "reward": rollout.reward.overall,
                "advantage": (!self.over_step).then_some(rollout.advantage),
            });
            self.rollouts.write(&line)?;
        }
        Ok(())
    }
}
