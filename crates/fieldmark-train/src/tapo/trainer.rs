//! Makes the steps of TAPO: rollouts, updates, validation, and the state between two steps.

use std::path::Path;

use burn::{module::Module, tensor::Device};
use fieldmark_generate::GenerateError;
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::Tokenizer;
use fieldmark_stream::StreamKey;

use super::{
    Diagnosis, OpenStep, SavedGroup, TapoConfig, TapoLossConfig, TapoState, TripletSource,
    diagnose::outlook_expected,
    items::{Items, Step},
    rollout::{Drawer, Drawing, Responder},
    update::Updates,
    validation::Held,
};
use crate::{
    TrainError, TrainEvent, Trainer,
    parallel::{Reduction, Replicas},
    reward::RewardRegistry,
    tapo::rollout::GroupBuffer,
    trainer::{Direction, Engine, Interrupt, Mark, OnEvent, Score, Updater, Verdict, idle_findings},
};

/// The metric that decides which checkpoint is the best: without a validation set, and with one.
const SAMPLED: &str = "mean reward of the rollouts drawn from it";
const HELD_OUT: &str = "mean reward on the validation set";

/// A run of TAPO. It can be stopped, saved and restored after every rollout step.
///
/// If `kl_ref` is not 0, the trainer keeps the model that the run starts from as the reference model.
pub struct TapoTrainer<'a, S> {
    config: TapoConfig,
    source: &'a S,
    streams: StreamKey,
    responder: Responder<'a>,
    drawer: Drawer<'a, S>,
    engine: Engine<TapoState>,
    reference: Option<Qwen25Vl>,
    steps: usize,
    step: usize,
    /// The step that had begun when the run was saved.
    open: Option<OpenStep>,
    validation: Option<&'a S>,
    /// True if the validation set is due and not yet scored: at the start, and after a stop while it was scored.
    unscored: bool,
    diagnosis: Diagnosis,
}

impl<'a, S: TripletSource> TapoTrainer<'a, S> {
    /// Creates a run over the samples of `source`. `device` must track gradients. `eos` are the tokens that end a
    /// response. `registry` holds the rewards that `config` names.
    ///
    /// # Errors
    /// Returns an error if a setting is out of range, a reward is unknown, or the source is empty.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        model: &Qwen25Vl,
        source: &'a S,
        tokenizer: &'a Tokenizer,
        eos: Vec<u32>,
        config: TapoConfig,
        registry: &RewardRegistry,
        streams: StreamKey,
        device: &Device,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        if source.is_empty() {
            return Err(TrainError::EmptySource);
        }
        let responder = Responder { tokenizer, eos, rewards: registry.choose(&config)? };
        let steps = config.steps(source.len());
        let (replicas, scorer) = (Replicas::new(config.workers, device), config.scorer(tokenizer.pad())?);
        let optimiser = (config.adamw, config.schedule, config.max_grad_norm);
        let engine = Engine::new(model, replicas, scorer, optimiser, steps * config.updates_per_step())?;
        let buffer = GroupBuffer::new(&config)?;
        Ok(Self {
            config,
            source,
            streams,
            responder,
            drawer: Drawer { source, buffer, drawn: 0 },
            engine,
            reference: None,
            steps,
            step: 0,
            open: None,
            validation: None,
            unscored: true,
            diagnosis: Diagnosis::default(),
        })
    }

    /// Sets the number of rollout steps. The default is [`TapoConfig::steps`].
    pub fn with_steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self.engine.updater = self.engine.updater.with_total(steps * self.config.updates_per_step());
        self
    }

    /// Sets the flag that stops [`Trainer::train`] after the current step.
    pub fn with_interrupt(mut self, interrupt: Interrupt) -> Self {
        self.engine.interrupt = interrupt;
        self
    }

    /// Spreads rollouts and updates over the devices `others` as well. They must track gradients. `reduction` sets how
    /// their gradients are summed.
    pub fn with_devices(mut self, others: &[Device], reduction: Reduction) -> Self {
        self.engine.replicas = self.engine.replicas.with_devices(others, reduction);
        self
    }

    /// Scores greedy answers to `rows` before the first step, every [`TapoConfig::eval_every`] steps and at the end.
    /// Uses only the anchor images of the rows. An empty set is ignored.
    pub fn with_validation(mut self, rows: &'a S) -> Self {
        self.validation = Some(rows).filter(|rows| !rows.is_empty());
        self
    }

    /// Sets the reference model, which must be the model that the whole run started from.
    pub fn with_reference(mut self, model: &Qwen25Vl) -> Self {
        self.reference = Some(model.valid());
        self
    }

    /// Continues from `state` with the moments in the file that [`Updater::save_optimizer`] wrote. The model's
    /// parameter ids must be [stable](crate::params::stable_param_ids), both now and when the state was saved.
    ///
    /// # Errors
    /// Returns an error if the moments cannot be read, a prompt cannot be made again, or the state belongs to a run
    /// over other data.
    pub fn restore(mut self, state: &TapoState, moments: &Path) -> Result<Self, TrainError> {
        for (what, saved, found) in [("rows", state.rows, self.source.len()), ("steps", state.steps, self.steps)] {
            if saved != found {
                return Err(TrainError::OtherRun { what, saved, found });
            }
        }
        self.engine.updater = self.engine.updater.restore(state.updates, moments)?;
        let surplus: Vec<_> = state.surplus.iter().map(|group| group.restore(self.source)).collect::<Result<_, _>>()?;
        self.drawer.buffer = self.drawer.buffer.with_surplus(surplus);
        self.drawer.drawn = state.drawn;
        self.step = state.step;
        self.open = state.open.clone();
        self.unscored = state.unscored;
        self.diagnosis = state.diagnosis.clone();
        Ok(self)
    }

    fn current(&self, open: Option<OpenStep>) -> TapoState {
        TapoState {
            rows: self.source.len(),
            steps: self.steps,
            step: self.step,
            drawn: self.drawer.drawn,
            updates: self.engine.updater.state(),
            surplus: self.drawer.buffer.surplus().map(SavedGroup::of).collect(),
            open,
            unscored: self.is_unscored(),
            diagnosis: self.diagnosis.clone(),
        }
    }

    /// Whether the validation set is due and not yet scored.
    fn is_unscored(&self) -> bool {
        self.unscored && self.validation.is_some()
    }

    /// Settings of the loss in the current step.
    fn loss(&self) -> TapoLossConfig {
        self.config.loss.scaled(self.config.terms.factor(self.step, self.steps))
    }

    /// Keeps the starting model as the reference, if the loss needs one.
    fn keep_reference(&mut self, model: &Qwen25Vl) -> Result<(), TrainError> {
        if self.config.loss.kl_ref != 0.0 && self.reference.is_none() {
            if self.step > 0 || self.open.is_some() {
                return Err(TrainError::NoReference);
            }
            self.reference = Some(model.valid());
        }
        Ok(())
    }

    /// Prepares the updates of a step. Its groups are sampled now, or were saved by a run that stopped in this step.
    /// Also returns the mean reward of the rollouts if they are sampled now.
    fn begin(&mut self, model: &Qwen25Vl, on_event: &mut OnEvent<'_>) -> Result<(Step, Option<f64>), TrainError> {
        let open = self.open.take();
        let (groups, reward) = match &open {
            Some(open) => (open.groups.iter().map(|group| group.restore(self.source)).collect::<Result<_, _>>()?, None),
            None => {
                let first = self.step == 0;
                let drawing = Drawing {
                    config: &self.config,
                    responder: &self.responder,
                    streams: &self.streams,
                    step: self.step,
                    engine: &self.engine,
                    tell_outlook: first && self.validation.is_none(),
                    look_at_images: first || self.config.is_due(self.step, self.source.len()),
                };
                let (buffer, drawn) = (self.drawer.buffer.clone(), self.drawer.drawn);
                let (groups, metrics) = self.drawer.draw(model, &drawing, on_event).inspect_err(|_| {
                    // What was sampled is thrown away; the same streams sample it again.
                    (self.drawer.buffer, self.drawer.drawn) = (buffer, drawn);
                })?;
                let found = self.diagnosis.look(&metrics, self.config.group(), self.source.len());
                found.iter().try_for_each(|found| on_event(TrainEvent::Finding(found)))?;
                (groups, Some(metrics.reward))
            }
        };
        let loss = self.loss();
        let items = Items { config: &self.config, loss: &loss, scorer: &self.engine.scorer };
        let device = self.engine.replicas.main().clone().without_autodiff();
        Ok((items.prepare(model, self.reference.as_ref(), groups, open, &device)?, reward))
    }

    /// Makes the remaining updates of the step. Returns early, without ending the step, if too many are skipped in a
    /// row.
    fn learn(
        &mut self,
        mut model: Qwen25Vl,
        mut step: Step,
        start: &TapoState,
        on_event: &mut OnEvent<'_>,
    ) -> Result<Qwen25Vl, TrainError> {
        let loss = self.loss();
        let first = step.updates;
        while step.updates * self.config.batch < step.items.len() {
            let before = self.engine.updater.state();
            let updates = Updates { config: &self.config, loss: &loss, steps: self.steps, step: self.step };
            let (next, metrics, timing) = updates.make(model, &mut self.engine, &step)?;
            model = next;
            if self.engine.updater.skipped_in_a_row() == 0 {
                self.engine.streak.clear();
            } else {
                // Before the first update, the step has only its rollouts, which can be drawn again.
                let state = match step.updates == first {
                    true => start.clone(),
                    false => TapoState { updates: before, ..self.current(Some(step.saved())) },
                };
                self.engine.streak.add(&metrics.non_finite, || state);
            }
            step.updates += 1;
            on_event(TrainEvent::TapoUpdate(&metrics, &timing))?;
            idle_findings(metrics.step, &metrics.idle)
                .iter()
                .try_for_each(|found| on_event(TrainEvent::Finding(found)))?;
            if self.engine.fault().is_some() {
                return Ok(model);
            }
        }
        self.step += 1;
        self.unscored = self.config.validates(self.step, self.steps, self.source.len());
        Ok(model)
    }

    /// Returns the mean reward on the validation set if there is a set and it is due.
    fn validate(&mut self, model: &Qwen25Vl, on_event: &mut OnEvent<'_>) -> Result<Option<f64>, TrainError> {
        let Some(rows) = self.validation.filter(|_| self.unscored) else { return Ok(None) };
        let held = Held { config: &self.config, responder: &self.responder, rows, stop: &self.engine.interrupt };
        let made = (self.engine.updater.done(), self.step);
        let found = held.score(model, &self.engine.replicas, &self.streams, made, on_event)?;
        self.unscored = false;
        if self.step == 0 {
            let outlook = outlook_expected(found.accuracy, self.config.group());
            outlook.iter().try_for_each(|outlook| on_event(TrainEvent::Finding(outlook)))?;
        }
        Ok(Some(found.reward))
    }

    /// The score of a model: the reward on the validation set after the step. Without a validation set, it is the
    /// reward of the step's rollouts, which scores the model before the step.
    fn score(&self, sampled: Option<f64>, before: usize, validated: Option<f64>) -> Option<Score> {
        let (metric, value, step) = match self.validation {
            Some(_) => (HELD_OUT, validated?, self.step),
            None => (SAMPLED, sampled?, before),
        };
        let mark = Mark { step, updates: 0 };
        value.is_finite().then_some(Score { metric, value, direction: Direction::Higher, mark })
    }
}

/// Returns `None` if sampling was stopped.
fn unless_stopped<T>(result: Result<T, TrainError>) -> Result<Option<T>, TrainError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(TrainError::Generate(GenerateError::Stopped)) => Ok(None),
        Err(error) => Err(error),
    }
}

impl<S: TripletSource> Trainer for TapoTrainer<'_, S> {
    type State = TapoState;

    fn step(&mut self, model: Qwen25Vl, on_event: &mut OnEvent<'_>) -> Result<(Qwen25Vl, Verdict), TrainError> {
        if self.is_finished() {
            return Ok((model, Verdict::default()));
        }
        let model = model.with_trainable(self.config.train);
        self.keep_reference(&model)?;
        if self.open.is_none() {
            match unless_stopped(self.validate(&model, on_event))? {
                None => return Ok((model, Verdict::default())),
                // It belongs to the step before, which was stopped while it was validated.
                Some(found @ Some(_)) if self.step > 0 => {
                    let score = self.score(None, self.step, found);
                    return Ok((model, Verdict { score, fault: None }));
                }
                Some(_) => {}
            }
        }
        let (start, before) = (self.current(self.open.clone()), self.step);
        let Some((step, sampled)) = unless_stopped(self.begin(&model, on_event))? else {
            return Ok((model, Verdict::default()));
        };
        let model = self.learn(model, step, &start, on_event)?;
        let ended = self.step > before;
        let validated = if ended { unless_stopped(self.validate(&model, on_event))?.flatten() } else { None };
        let fault = self.engine.fault().or_else(|| self.diagnosis.fault());
        Ok((model, Verdict { score: self.score(sampled, before, validated), fault }))
    }

    fn done(&self) -> usize {
        self.step
    }

    fn total(&self) -> usize {
        self.steps
    }

    fn mark(&self) -> Mark {
        let state = self.state();
        Mark { step: state.step, updates: state.open.as_ref().map_or(0, |open| open.updates) }
    }

    fn state(&self) -> TapoState {
        self.engine.streak.before().cloned().unwrap_or_else(|| self.current(self.open.clone()))
    }

    fn is_finished(&self) -> bool {
        self.step >= self.steps && !self.is_unscored()
    }

    fn updater(&self) -> &Updater {
        &self.engine.updater
    }

    fn interrupt(&self) -> &Interrupt {
        &self.engine.interrupt
    }
}
