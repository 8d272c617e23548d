//! `fieldmark tapo`: triplet-augmented policy optimisation of a checkpoint (arXiv 2602.07605, section 4.3).

use std::{collections::BTreeMap, time::Instant};

use burn::tensor::Device;
use fieldmark::{
    generate::{FinishReason, StreamKey},
    progress::Progress,
    train::{
        Group, MetricsWriter, RewardRegistry, Role, RolloutMetrics, TapoEvent, TapoTrainer, TrainError, TripletSource,
        stable_param_ids,
    },
};
use serde_json::{Value, json};

use super::{
    Outcome, RunArgs,
    checkpoint::{self, Checkpoint},
    curve::{Series, svg},
    say, training,
    training::Prepared,
    triplets::Triplets,
};

/// Trains and saves.
///
/// # Errors
/// Whatever is wrong with recipe, data or checkpoint, before anything is written.
pub fn run(args: &RunArgs) -> anyhow::Result<Outcome> {
    let start = Instant::now();
    let prepared = Prepared::new(args, "tapo", |recipe| {
        recipe.tapo.validate()?;
        RewardRegistry::standard(&recipe.tapo).choose(&recipe.tapo).map(drop)
    })?;
    let (recipe, output) = (&prepared.recipe, &prepared.output);
    let in_section = |error| training::in_section("tapo", error);
    let checkpoint = Checkpoint::open(&recipe.model)?;
    let processor = checkpoint::sized(&checkpoint.processor, recipe.data.tapo.sizes, "data.tapo.sizes")?;
    let source = Triplets::open(recipe, processor, checkpoint.context)?;
    if recipe.data.check {
        training::try_samples(source.len(), |row| source.prompt(row, 0).map(drop))?;
    }
    let device: Device = prepared.device.device.clone().autodiff();
    let model = stable_param_ids(checkpoint.load(&device)?);
    let mut trainer = TapoTrainer::new(
        &model,
        &source,
        &checkpoint.processor.tokenizer,
        checkpoint.eos.clone(),
        recipe.tapo.clone(),
        &RewardRegistry::standard(&recipe.tapo),
        StreamKey::new(recipe.seed),
        &device,
    )
    .map_err(in_section)?;

    prepared.start()?;
    let steps = trainer.steps();
    let mut log = Log {
        source: &source,
        metrics: MetricsWriter::create(output.file("metrics.jsonl"))?,
        rollouts: MetricsWriter::create(output.file("rollouts.jsonl"))?,
        progress: Progress::new("tapo", steps),
        step: 1,
        over_step: recipe.tapo.estimator.is_over_step(),
        last: String::new(),
        curves: curves(&recipe.tapo.rewards),
    };
    let model = trainer.train(model, |event| log.event(event)).map_err(in_section)?;
    log.progress.step(steps, log.last.clone());
    log.progress.finish();
    output.write("reward.svg", svg("TAPO", "rollout step", "mean", &log.curves)?.as_bytes())?;
    let saved = checkpoint.save(&model, output)?;
    say(&format!("{steps} steps on {} triplets in {}: {}", source.len(), training::elapsed(start), saved.display()))?;
    Ok(Outcome::Done)
}

/// The mean reward, accuracy by image, and each reward; in the order of [`RolloutMetrics`].
fn curves(rewards: &BTreeMap<String, f64>) -> Vec<Series> {
    let means = ["reward", "accuracy, anchor", "accuracy, positive"].map(str::to_owned);
    means.into_iter().chain(rewards.keys().cloned()).map(Series::new).collect()
}

/// Writes down what happens.
struct Log<'a> {
    source: &'a Triplets,
    metrics: MetricsWriter,
    rollouts: MetricsWriter,
    progress: Progress,
    step: usize,
    /// Whether advantages are not known yet when rollouts are written.
    over_step: bool,
    last: String,
    curves: Vec<Series>,
}

impl Log<'_> {
    fn event(&mut self, event: TapoEvent<'_>) -> Result<(), TrainError> {
        match event {
            TapoEvent::Rollouts(groups) => groups.iter().try_for_each(|group| self.group(group)),
            TapoEvent::Drawn(row) => {
                self.drawn(row);
                self.metrics.write(row)
            }
            TapoEvent::Update(row) => {
                let message = format!("{}  loss {:.4}", self.last, row.parts.loss);
                self.progress.step(row.rollout_step - 1, message);
                self.metrics.write(row)
            }
        }
    }

    fn drawn(&mut self, row: &RolloutMetrics) {
        self.step = row.rollout_step + 1;
        // Means over nothing are not numbers: of a role without rollouts, or of all in a step that surplus groups fill.
        let right: Vec<f64> =
            [row.accuracy_anchor, row.accuracy_positive].into_iter().filter(|share| share.is_finite()).collect();
        self.last = if right.is_empty() {
            format!("{} groups from the step before", row.groups.carried_in)
        } else {
            let share = right.iter().sum::<f64>() / right.len() as f64;
            format!("reward {:.3}  right {share:.2}  kept {}/{}", row.reward, row.groups.kept, row.groups.offered)
        };
        let parts = row.rewards.values().copied();
        let values = [row.reward, row.accuracy_anchor, row.accuracy_positive].into_iter().chain(parts);
        for (curve, value) in self.curves.iter_mut().zip(values).filter(|(_, value)| value.is_finite()) {
            curve.points.push((row.rollout_step as f64, value));
        }
        self.progress.step(row.rollout_step - 1, self.last.clone());
    }

    /// One line a response: what was shown, what was said, what it was worth.
    fn group(&mut self, group: &Group) -> Result<(), TrainError> {
        let row = self.source.row_of(&group.prompt);
        for rollout in &group.rollouts {
            let (role, image) = match rollout.role {
                Role::Anchor => ("anchor", row.map(|row| &row.anchor)),
                Role::Positive => ("positive", row.map(|row| &row.positive)),
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
