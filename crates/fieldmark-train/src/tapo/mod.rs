//! Triplet-augmented policy optimisation (paper 4.3): one step draws rollouts, keeps the groups worth learning from, and
//! makes a few updates of the loss in [`tapo_loss`].
//!
//! Where the paper and its code differ, [`TapoConfig`] decides.

pub mod advantage;
pub(crate) mod config;
mod draw;
mod items;
pub(crate) mod loss;
pub mod policy;
pub mod rollout;
mod state;
mod update;
mod validation;

use std::path::Path;

use burn::{module::Module, tensor::Device};
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::Tokenizer;
use fieldmark_stream::StreamKey;

use crate::{
    DecodingTiming, Interrupt, RolloutMetrics, TapoMetrics, TrainError, UpdateTiming,
    gradient::Scorer,
    non_finite::Streak,
    parallel::Reduction,
    reward::{RewardRegistry, WeightedRewards},
    update::Updater,
    workers::Replicas,
};

pub(crate) use self::state::widened;
pub use self::{
    config::{TapoConfig, UpdateImage},
    loss::{LossAverage, TapoInputs, TapoLoss, TapoLossConfig, TapoParts, tapo_loss},
    state::{OpenStep, SavedGroup, TapoState},
    validation::TapoValidation,
};
use self::{
    rollout::{Group, GroupBuffer, TripletPrompt},
    state::DrawnGroup,
};

/// Makes the prompts of a sample in an epoch.
pub trait TripletSource: Sync {
    /// Samples in an epoch.
    fn len(&self) -> usize;

    /// Whether there is nothing to train on.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sample `row` as it looks in `epoch`, the same at every call: a resumed run makes the prompts of groups that wait again.
    ///
    /// # Errors
    /// If the row cannot be read; the row is named.
    fn prompt(&self, row: usize, epoch: usize) -> Result<TripletPrompt, TrainError>;
}

/// What a run shows while it goes on.
pub enum TapoEvent<'a> {
    /// The rollouts of a step, before the filter, chunk by chunk.
    Rollouts(&'a [Group]),
    /// All rollouts of a step are drawn.
    Drawn(&'a RolloutMetrics, &'a DecodingTiming),
    /// An update is made.
    Update(&'a TapoMetrics, &'a UpdateTiming),
    /// The validation set is scored, each answer a group of its own.
    Validation(&'a [Group], &'a TapoValidation, &'a DecodingTiming),
}

/// A run of TAPO: optimiser, surplus groups and place in the data. Rollout step by rollout step it can be stopped, saved and
/// restored.
///
/// With `kl_ref` other than 0, the model that the run starts from is kept as the reference model.
pub struct TapoTrainer<'a, S> {
    config: TapoConfig,
    source: &'a S,
    tokenizer: &'a Tokenizer,
    eos: Vec<u32>,
    rewards: WeightedRewards,
    streams: StreamKey,
    replicas: Replicas,
    scorer: Scorer,
    updater: Updater,
    buffer: GroupBuffer<DrawnGroup>,
    reference: Option<Qwen25Vl>,
    steps: usize,
    step: usize,
    drawn: usize,
    /// What a saved run left of a step that had begun.
    open: Option<OpenStep>,
    interrupt: Interrupt,
    streak: Streak,
    before_streak: Option<TapoState>,
    validation: Option<&'a S>,
    /// Whether the model that the run starts from has not been validated.
    unscored: bool,
}

impl<'a, S: TripletSource> TapoTrainer<'a, S> {
    /// A run over `source`. `device` must track gradients, `eos` are the tokens that end a response, `registry` has the
    /// rewards that the settings name.
    ///
    /// # Errors
    /// A setting out of range, an unknown reward, or an empty source.
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
        let rewards = registry.choose(&config)?;
        let steps = config.steps(source.len());
        let total = steps * config.updates_per_step();
        Ok(Self {
            scorer: config.scorer(tokenizer.pad())?,
            updater: Updater::new(model, config.adamw, config.schedule, config.max_grad_norm, total)?,
            buffer: GroupBuffer::new(config.filter.clone(), config.prompts_per_step, config.max_tries)?,
            replicas: Replicas::new(config.workers, device),
            config,
            source,
            tokenizer,
            eos,
            rewards,
            streams,
            reference: None,
            steps,
            step: 0,
            drawn: 0,
            open: None,
            interrupt: Interrupt::new(),
            streak: Streak::default(),
            before_streak: None,
            validation: None,
            unscored: true,
        })
    }

    /// The same with another number of steps than the passes over the data make.
    pub fn with_steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self.updater = self.updater.with_total(steps * self.config.updates_per_step());
        self
    }

    /// The same, but [`Self::train`] returns after the step in which `interrupt` asks it to.
    pub fn with_interrupt(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// The same with rollouts and updates spread over `others` as well, devices that track gradients. `reduction` adds up what
    /// they find.
    pub fn with_devices(mut self, others: &[Device], reduction: Reduction) -> Self {
        self.replicas = self.replicas.with_devices(others, reduction);
        self
    }

    /// The same, but the answers to `rows` are scored before the first step, every [`TapoConfig::eval_every`] steps and at the
    /// end. Of their prompts the anchors alone are looked at. A set without rows is none.
    pub fn with_validation(mut self, rows: &'a S) -> Self {
        self.validation = Some(rows).filter(|rows| !rows.is_empty());
        self
    }

    /// The same with `model` as the reference model: the one that the whole run started from.
    pub fn with_reference(mut self, model: &Qwen25Vl) -> Self {
        self.reference = Some(model.valid());
        self
    }

    /// Continues where `state` was taken, with the moments from the file that [`Updater::save_optimizer`] wrote. The
    /// model's parameter ids must be [stable](crate::stable_param_ids), as they must have been when it was saved.
    ///
    /// # Errors
    /// If the moments cannot be read, a prompt cannot be made again, or the state is that of a run over other data.
    pub fn restore(mut self, state: &TapoState, moments: &Path) -> Result<Self, TrainError> {
        for (what, saved, found) in [("rows", state.rows, self.source.len()), ("steps in all", state.steps, self.steps)]
        {
            if saved != found {
                return Err(TrainError::OtherRun { what, saved, found });
            }
        }
        self.updater = self.updater.restore(state.updates, moments)?;
        let surplus: Vec<_> = state.surplus.iter().map(|group| group.restore(self.source)).collect::<Result<_, _>>()?;
        self.buffer = self.buffer.with_surplus(surplus);
        self.step = state.step;
        self.drawn = state.drawn;
        self.open = state.open.clone();
        self.unscored = false;
        Ok(self)
    }

    /// What to save beside weights and moments. While updates are being skipped it is the state before the first of them:
    /// they change neither weights nor moments, so that both still belong to it.
    pub fn state(&self) -> TapoState {
        self.before_streak.clone().unwrap_or_else(|| self.current(self.open.clone()))
    }

    fn current(&self, open: Option<OpenStep>) -> TapoState {
        TapoState {
            rows: self.source.len(),
            steps: self.steps,
            step: self.step,
            drawn: self.drawn,
            updates: self.updater.state(),
            surplus: self.buffer.surplus().map(SavedGroup::of).collect(),
            open,
        }
    }

    /// Optimiser and schedule.
    pub fn updater(&self) -> &Updater {
        &self.updater
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Steps made.
    pub fn done(&self) -> usize {
        self.step
    }

    /// Whether every step is made.
    pub fn is_finished(&self) -> bool {
        self.step >= self.steps
    }

    /// Why the run must not go on: too many updates in a row could not be made.
    pub fn fault(&self) -> Option<TrainError> {
        self.streak.fault(self.updater.skipped_in_a_row(), self.updater.done())
    }

    /// Makes the steps that are left. Every event is shown to `on_event`. Returns earlier if the interrupt asks for it.
    ///
    /// # Errors
    /// If a prompt cannot be made or does not fit the model, too many updates in a row are not finite, or `on_event` says
    /// so.
    pub fn train(
        &mut self,
        mut model: Qwen25Vl,
        mut on_event: impl FnMut(TapoEvent<'_>) -> Result<(), TrainError>,
    ) -> Result<Qwen25Vl, TrainError> {
        while !self.is_finished() && !self.interrupt.asked() {
            model = self.step(model, &mut on_event)?;
            if let Some(fault) = self.fault() {
                return Err(fault);
            }
        }
        Ok(model)
    }

    /// Makes one step, or none if the run [is finished](Self::is_finished). Whoever calls this looks at [`Self::fault`]
    /// after it: the step is then not at its end.
    ///
    /// # Errors
    /// If a prompt cannot be made or does not fit the model, or `on_event` says so.
    pub fn step(
        &mut self,
        model: Qwen25Vl,
        mut on_event: impl FnMut(TapoEvent<'_>) -> Result<(), TrainError>,
    ) -> Result<Qwen25Vl, TrainError> {
        if self.is_finished() {
            return Ok(model);
        }
        let model = model.with_trainable(self.config.train);
        if self.config.loss.kl_ref != 0.0 && self.reference.is_none() {
            if self.step > 0 || self.open.is_some() {
                return Err(TrainError::NoReference);
            }
            self.reference = Some(model.valid());
        }
        if self.step == 0 {
            self.validate_if_due(&model, &mut on_event)?;
        }
        let start = self.current(self.open.clone());
        let step = match self.open.take() {
            Some(open) => {
                let groups = open.groups.iter().map(|group| group.restore(self.source)).collect::<Result<_, _>>()?;
                self.prepare(&model, groups, Some(open))?
            }
            None => {
                let mut groups = self.draw(&model, &mut on_event)?;
                self.config.estimator.over_step(&mut groups)?;
                self.prepare(&model, groups, None)?
            }
        };
        let before = self.step;
        let model = self.learn(model, step, start, &mut on_event)?;
        if self.step > before {
            self.validate_if_due(&model, &mut on_event)?;
        }
        Ok(model)
    }

    /// The loss of the step that is being made.
    fn loss(&self) -> TapoLossConfig {
        self.config.loss.scaled(self.config.terms.factor(self.step, self.steps))
    }
}
