//! What a run of TAPO writes down: metrics, timings, every response, and how it is shown meanwhile.

use fieldmark::{
    generate::FinishReason,
    train::{Group, LogEnd, MetricsWriter, Role, Rollout, RolloutMetrics, TapoEvent, TapoValidation, TrainError},
};
use serde_json::{Value, json};

use super::{instruments::Instruments, training, training::Prepared, triplets::Triplets};

/// The logs of a run.
pub struct Log<'a> {
    source: &'a Triplets,
    /// Measurements of steps and updates.
    pub metrics: MetricsWriter,
    /// Clock and display.
    pub instruments: Instruments,
    rollouts: MetricsWriter,
    /// The validation set and the file of its answers.
    held: Option<(&'a Triplets, MetricsWriter)>,
    /// The step that is being made, from 1.
    step: usize,
    /// Updates made in it.
    updates: usize,
    /// Whether advantages are not known yet when rollouts are written.
    over_step: bool,
    /// How the step's rollouts went, its last update, and its validation.
    drawn: String,
    update: String,
    validation: String,
    reward: Option<f64>,
    validated: Option<f64>,
}

impl<'a> Log<'a> {
    /// The logs of a new run, or of one that goes on at `end`.
    ///
    /// # Errors
    /// If a file cannot be written or continued.
    pub fn open(
        prepared: &Prepared,
        source: &'a Triplets,
        held: Option<&'a Triplets>,
        instruments: Instruments,
        end: Option<LogEnd>,
    ) -> Result<Self, TrainError> {
        let held = held.map(|set| Ok::<_, TrainError>((set, prepared.log("validation.jsonl", end)?))).transpose()?;
        Ok(Self {
            source,
            metrics: prepared.log("metrics.jsonl", end)?,
            instruments,
            rollouts: prepared.log("rollouts.jsonl", end)?,
            held,
            step: 1,
            updates: 0,
            over_step: prepared.recipe.tapo.estimator.is_over_step(),
            drawn: String::new(),
            update: String::new(),
            validation: String::new(),
            reward: None,
            validated: None,
        })
    }

    /// A step begins, after `done` others.
    pub fn begin(&mut self, done: usize) {
        (self.step, self.updates) = (done + 1, 0);
        // A step that a checkpoint left open drew its rollouts before.
        (self.reward, self.validated) = (None, None);
        self.phase("rollouts");
    }

    /// Mean reward of the rollouts that the step drew, and the steps made before them.
    pub fn reward(&self) -> Option<(f64, usize)> {
        self.reward.filter(|reward| reward.is_finite()).map(|reward| (reward, self.step - 1))
    }

    /// Mean reward on the validation set after the step, if that was scored.
    pub fn validated(&self) -> Option<f64> {
        self.validated.filter(|reward| reward.is_finite())
    }

    /// Writes down what happened.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn event(&mut self, event: TapoEvent<'_>) -> Result<(), TrainError> {
        match event {
            TapoEvent::Rollouts(groups) => {
                self.instruments.display.count("Groups drawn", groups.len());
                groups.iter().try_for_each(|group| self.group(group))
            }
            TapoEvent::Drawn(row, timing) => {
                self.drawn(row);
                self.phase("updates");
                self.metrics.write(row)?;
                self.instruments.decoded(row, timing)
            }
            TapoEvent::Update(row, timing) => {
                let display = &mut self.instruments.display;
                training::note_skipped(display, row.step, row.grad_norm, row.parts.loss, &row.non_finite);
                self.update = format!("  loss {:.4}  lr {:.2e}", row.parts.loss, row.lr);
                self.updates += 1;
                self.instruments.display.step(row.rollout_step - 1, self.updates, self.message());
                self.metrics.write(row)?;
                self.instruments.update(row, timing)
            }
            TapoEvent::Validation(answers, row, timing) => {
                answers.iter().try_for_each(|answer| self.answer(answer, row))?;
                self.validation = format!("  validation {:.3}", row.reward);
                // The model that the run starts from is no checkpoint of it.
                self.validated = (row.rollout_step > 0).then_some(row.reward);
                self.metrics.write(row)?;
                self.instruments.decoded(row, timing)
            }
        }
    }

    fn drawn(&mut self, row: &RolloutMetrics) {
        self.reward = Some(row.reward);
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

    /// How the step went.
    pub fn message(&self) -> String {
        format!("{}{}{}", self.drawn, self.update, self.validation)
    }

    fn group(&mut self, group: &Group) -> Result<(), TrainError> {
        for rollout in &group.rollouts {
            let mut line = line(self.source, group, rollout);
            line["rollout_step"] = self.step.into();
            line["advantage"] = (!self.over_step).then_some(rollout.advantage).into();
            self.rollouts.write(&line)?;
        }
        Ok(())
    }

    fn answer(&mut self, answer: &Group, row: &TapoValidation) -> Result<(), TrainError> {
        let Some((set, file)) = &mut self.held else { return Ok(()) };
        for rollout in &answer.rollouts {
            let mut line = line(set, answer, rollout);
            (line["step"], line["rollout_step"]) = (row.step.into(), row.rollout_step.into());
            file.write(&line)?;
        }
        Ok(())
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> Result<(), TrainError> {
        self.metrics.sync()?;
        self.instruments.sync()?;
        self.held.iter().try_for_each(|(_, file)| file.sync())?;
        self.rollouts.sync()
    }
}

/// A response: what was shown, what was said, what it was worth.
fn line(source: &Triplets, group: &Group, rollout: &Rollout) -> Value {
    let row = source.row_of(&group.prompt);
    let (role, image) = match rollout.role {
        Role::Anchor => ("anchor", row.map(|row| &row.anchor)),
        Role::Positive => ("positive", row.and_then(|row| row.positive.as_ref())),
    };
    json!({
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
    })
}
