//! Triplet-augmented policy optimisation (paper 4.3): one step draws rollouts, keeps the groups worth learning from, and
//! makes a few updates of the loss in [`crate::tapo_loss`].
//!
//! Where the paper and its code differ, [`TapoConfig`] decides.

use std::{path::Path, time::Instant};

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use fieldmark_generate::{GenerationConfig, Sampling, StreamKey};
use fieldmark_model::{Flops, Qwen25Vl, Qwen25VlConfig};
use fieldmark_processor::{Sequence, SupervisedSequence, Tokenizer};

use crate::{
    BatchSize, GradientSum, GroupBuffer, GroupVerdict, Interrupt, Normaliser, OpenStep, ResponseRows, RewardRegistry,
    RolloutGroup, RolloutMetrics, RolloutTiming, SamplerGap, SavedGroup, TapoConfig, TapoInputs, TapoLossConfig,
    TapoMetrics, TapoParts, TapoState, TrainError, UpdateImage, UpdateTiming, WeightedRewards,
    clip::grad_norm,
    micro_batches,
    non_finite::{Streak, culprits},
    pass_flops,
    rollout::{Group, Role, RolloutCounts, TripletPrompt, mean, mean_parts, rollout_groups, truncated},
    scoring::Scorer,
    tapo_loss,
    tapo_state::DrawnGroup,
    update::Updater,
    workers::{Replicas, on_replicas, sum_on_replicas},
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
    Drawn(&'a RolloutMetrics, &'a RolloutTiming),
    /// An update is made.
    Update(&'a TapoMetrics, &'a UpdateTiming),
}

/// One response with everything the loss needs.
#[derive(Debug, Clone)]
struct Item {
    update: SupervisedSequence,
    negative: Option<SupervisedSequence>,
    advantage: f64,
    old_logp: Vec<f32>,
    /// log π on the negative image, where it carries no gradient.
    neg_logp: Option<Vec<f32>>,
    /// log π of the reference model on the update's image, where there is one.
    ref_logp: Option<Vec<f32>>,
}

/// A step whose groups are drawn.
struct Step {
    groups: Vec<DrawnGroup>,
    items: Vec<Item>,
    /// Updates made.
    updates: usize,
}

impl Step {
    fn saved(&self) -> OpenStep {
        OpenStep {
            groups: self.groups.iter().map(SavedGroup::of).collect(),
            updates: self.updates,
            negatives: self.items.iter().filter_map(|item| item.neg_logp.clone()).collect(),
        }
    }
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

    /// The same with rollouts and updates spread over `others` as well, devices that track gradients.
    pub fn with_devices(mut self, others: &[Device]) -> Self {
        self.replicas = self.replicas.with_devices(others);
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
        self.learn(model, step, start, &mut on_event)
    }

    /// Draws chunks until the step's groups are full or the tries are used up.
    fn draw(
        &mut self,
        model: &Qwen25Vl,
        on_event: &mut impl FnMut(TapoEvent<'_>) -> Result<(), TrainError>,
    ) -> Result<Vec<DrawnGroup>, TrainError> {
        let start = Instant::now();
        let sampler = model.valid();
        let replicas = self.replicas.without_autodiff();
        let generation = GenerationConfig {
            sampling: Sampling::nucleus(self.config.temperature, self.config.top_p),
            max_batch: self.config.generation_batch,
            ..GenerationConfig::greedy(self.config.max_new_tokens, self.eos.clone())
        };
        let counts = RolloutCounts { anchor: self.config.anchor_rollouts, positive: self.config.positive_rollouts };
        let mut all = Vec::new();
        let mut chunk = 0;
        while self.buffer.wants_more() {
            let key = self.streams.word("rollout").number(self.step as u64).number(chunk);
            let places = self.next_places();
            let prompts: Vec<TripletPrompt> =
                places.iter().map(|&(row, epoch)| self.source.prompt(row, epoch)).collect::<Result<_, _>>()?;
            let shares: Vec<(usize, &[TripletPrompt])> = {
                let share = prompts.len().div_ceil(replicas.len()).max(1);
                prompts.chunks(share).enumerate().map(|(i, prompts)| (i * share, prompts)).collect()
            };
            let sampled = on_replicas(&sampler, &shares, &replicas, |sampler, (first, prompts), device| {
                let mut groups = rollout_groups(
                    sampler,
                    prompts,
                    *first,
                    counts,
                    self.config.estimator,
                    &generation,
                    &self.rewards,
                    self.tokenizer,
                    &key,
                    device,
                )?;
                self.score_old(sampler, &mut groups, device)?;
                Ok(groups)
            })?;
            let groups: Vec<Group> = sampled.into_iter().flatten().collect();
            on_event(TapoEvent::Rollouts(&groups))?;
            all.extend(groups.iter().cloned());
            let drawn = places.into_iter().zip(groups);
            self.buffer.offer(drawn.map(|((row, epoch), group)| DrawnGroup { row, epoch, group }));
            chunk += 1;
        }
        let (groups, counts) = self.buffer.take();
        let metrics = RolloutMetrics {
            step: self.updater.done(),
            rollout_step: self.step + 1,
            reward: mean(&all, |_| true, |rollout| rollout.reward.overall),
            accuracy_anchor: mean(&all, |rollout| rollout.role == Role::Anchor, |rollout| rollout.reward.accuracy),
            accuracy_positive: mean(&all, |rollout| rollout.role == Role::Positive, |rollout| rollout.reward.accuracy),
            rewards: mean_parts(&all),
            response_tokens: mean(&all, |_| true, |rollout| rollout.response.ids.len() as f64),
            truncated: mean(&all, |_| true, truncated),
            sampler: SamplerGap::of(&all, self.config.update_image),
            groups: counts,
        };
        let tokens = all.iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.response.ids.len()).sum();
        let timing = RolloutTiming::new(metrics.step, metrics.rollout_step, tokens, start.elapsed());
        on_event(TapoEvent::Drawn(&metrics, &timing))?;
        Ok(groups)
    }

    /// Row and epoch of the next chunk of samples; the order is shuffled anew in each epoch.
    fn next_places(&mut self) -> Vec<(usize, usize)> {
        let rows = self.source.len();
        let mut places = Vec::with_capacity(self.config.chunk);
        let mut order = (usize::MAX, Vec::new());
        for _ in 0..self.config.chunk {
            let (epoch, place) = (self.drawn / rows, self.drawn % rows);
            if order.0 != epoch {
                order = (epoch, (0..rows).collect());
                self.streams.word("tapo").word("order").number(epoch as u64).stream().shuffle(&mut order.1);
            }
            places.push((order.1[place], epoch));
            self.drawn += 1;
        }
        places
    }

    /// log π_old of the groups worth learning from. Taken now, so that a group that waits for the next step keeps those of
    /// the policy that sampled it.
    fn score_old(&self, sampler: &Qwen25Vl, groups: &mut [Group], device: &Device) -> Result<(), TrainError> {
        for group in groups {
            if self.config.filter.verdict(group.mean_accuracy()) != GroupVerdict::Keep {
                continue;
            }
            let items = self.items(group);
            let found = self.score(sampler, items.iter().map(|item| &item.update), device)?;
            for (rollout, old_logp) in group.rollouts.iter_mut().zip(found) {
                rollout.old_logp = old_logp;
            }
        }
        Ok(())
    }

    /// log π of the responses' tokens, a row each, without gradient.
    fn score<'b>(
        &self,
        model: &Qwen25Vl,
        samples: impl Iterator<Item = &'b SupervisedSequence>,
        device: &Device,
    ) -> Result<Vec<Vec<f32>>, TrainError> {
        let samples: Vec<SupervisedSequence> = samples.cloned().collect();
        let mut rows = Vec::with_capacity(samples.len());
        for samples in samples.chunks(self.config.micro_batch) {
            let micro = self.scorer.micro_batch(samples.to_vec())?;
            let scored = self.scorer.forward(model, &micro, device)?;
            let values: Vec<f32> = scored.logp_n.into_data().iter::<f32>().collect();
            let mut rest = values.as_slice();
            for &count in micro.packing().counts() {
                let (row, later) = rest.split_at(count);
                rest = later;
                rows.push(row.to_vec());
            }
        }
        Ok(rows)
    }

    /// The loss of the step that is being made.
    fn loss(&self) -> TapoLossConfig {
        self.config.loss.scaled(self.config.terms.factor(self.step, self.steps))
    }

    /// Everything that the updates of a step need and that is the same in all of them. `open` is what was saved of it.
    fn prepare(&self, model: &Qwen25Vl, groups: Vec<DrawnGroup>, open: Option<OpenStep>) -> Result<Step, TrainError> {
        let mut items: Vec<Item> = groups.iter().flat_map(|drawn| self.items(&drawn.group)).collect();
        let device = self.replicas.main().clone().without_autodiff();
        let loss = self.loss();
        let without = groups.iter().map(|drawn| &drawn.group.prompt).find(|prompt| prompt.negative.is_none());
        if let Some(prompt) = without.filter(|_| loss.needs_negative()) {
            let reason =
                "has no negative image, which tapo.loss.gamma and eta2 need; set both to 0 to do without".into();
            return Err(TrainError::Sample { row: prompt.anchor.name.clone(), reason });
        }
        let updates = open.as_ref().map_or(0, |open| open.updates);
        if loss.needs_negative() && !loss.negative_grad {
            // As released: one pass for all updates of the step, before the first of them.
            let negatives = items.iter().filter_map(|item| item.negative.as_ref());
            let found = match open {
                Some(open) => open.negatives,
                None => self.score(&model.valid(), negatives, &device)?,
            };
            items.iter_mut().zip(found).for_each(|(item, found)| item.neg_logp = Some(found));
        }
        if let Some(reference) = &self.reference {
            let found = self.score(reference, items.iter().map(|item| &item.update), &device)?;
            items.iter_mut().zip(found).for_each(|(item, found)| item.ref_logp = Some(found));
        }
        Ok(Step { groups, items, updates })
    }

    /// The updates of one step that are left. `start` is the state before it.
    fn learn(
        &mut self,
        mut model: Qwen25Vl,
        mut step: Step,
        start: TapoState,
        on_event: &mut impl FnMut(TapoEvent<'_>) -> Result<(), TrainError>,
    ) -> Result<Qwen25Vl, TrainError> {
        let loss = self.loss();
        let first = step.updates;
        while step.updates * self.config.batch < step.items.len() {
            let clock = Instant::now();
            let from = step.updates * self.config.batch;
            let batch = &step.items[from..step.items.len().min(from + self.config.batch)];
            let lengths: Vec<usize> = batch.iter().map(|item| item.tokens(&loss)).collect();
            let micros: Vec<&[Item]> = micro_batches(&lengths, self.config.micro_batch, self.config.micro_tokens)
                .into_iter()
                .map(|range| &batch[range])
                .collect();
            let size = size(batch);
            let (shares, grads) = sum_on_replicas(&model, &micros, &self.replicas, |model, micro, device, sum| {
                let normaliser = self.config.loss_norm.normaliser(size, self::size(micro), micros.len());
                let normaliser = normaliser.with_token_budget(self.config.max_new_tokens);
                self.gradients(model, micro, &loss, &normaliser, device, sum)
            })?;
            let mut parts = TapoParts::default();
            shares.into_iter().for_each(|share| parts += share);
            let before = self.updater.state();
            let (next, updated) = self.updater.step(model, parts.loss, grads);
            model = next;
            let non_finite = if updated.skipped { self.culprits(&model, &micros, &loss)? } else { Vec::new() };
            if !updated.skipped {
                self.before_streak = None;
                self.streak.clear();
            } else {
                self.streak.add(&non_finite);
                if self.before_streak.is_none() {
                    // Before the first update of a step nothing but the draw lies behind, and that can be drawn again.
                    self.before_streak = Some(match step.updates == first {
                        true => start.clone(),
                        false => TapoState { updates: before, ..self.current(Some(step.saved())) },
                    });
                }
            }
            step.updates += 1;
            let metrics = TapoMetrics {
                step: self.updater.done(),
                rollout_step: self.step + 1,
                parts,
                lr: updated.lr,
                grad_norm: updated.grad_norm,
                tokens: size.tokens,
                skipped: self.updater.skipped(),
                non_finite,
            };
            let tokens = lengths.iter().sum();
            let needed: Flops = micros.iter().map(|micro| flops(micro, &loss, model.config())).sum();
            let flops = needed.training(self.config.train);
            let timing = UpdateTiming::new(metrics.step, Some(metrics.rollout_step), tokens, flops, clock.elapsed());
            on_event(TapoEvent::Update(&metrics, &timing))?;
            if self.fault().is_some() {
                return Ok(model);
            }
        }
        self.step += 1;
        Ok(model)
    }

    /// Names of the samples whose loss or gradient is not finite.
    fn culprits(&self, model: &Qwen25Vl, micros: &[&[Item]], loss: &TapoLossConfig) -> Result<Vec<String>, TrainError> {
        culprits(micros, |items| {
            let normaliser = self.config.loss_norm.normaliser(size(items), size(items), 1);
            let normaliser = normaliser.with_token_budget(self.config.max_new_tokens);
            let mut sum = GradientSum::new();
            let parts = self.gradients(model, items, loss, &normaliser, self.replicas.main(), &mut sum)?;
            let finite = parts.loss.is_finite() && grad_norm(&sum.into_grads(), model).is_finite();
            Ok((!finite).then(|| items.iter().map(|item| item.update.sequence.name.clone()).collect()))
        })
    }

    /// The group's responses after the prompts that the update scores them on.
    fn items(&self, group: &Group) -> Vec<Item> {
        let attach = |prompt: &Sequence, ids: &[u32]| {
            let mut target_mask = vec![false; prompt.ids.len()];
            target_mask.resize(prompt.ids.len() + ids.len(), true);
            SupervisedSequence { sequence: prompt.with_response(ids), target_mask }
        };
        let prompt = &group.prompt;
        group
            .rollouts
            .iter()
            .map(|rollout| {
                let image = match (self.config.update_image, rollout.role) {
                    (UpdateImage::Own, Role::Positive) => &prompt.positive,
                    _ => &prompt.anchor,
                };
                Item {
                    update: attach(image, &rollout.response.ids),
                    negative: prompt.negative.as_ref().map(|negative| attach(negative, &rollout.response.ids)),
                    advantage: rollout.advantage,
                    old_logp: rollout.old_logp.clone(),
                    neg_logp: None,
                    ref_logp: None,
                }
            })
            .collect()
    }

    /// One micro-batch's share of the loss; its gradients are added to `sum`.
    ///
    /// Responses on the negative image are sequences of the same micro-batch, after those on the update's.
    fn gradients(
        &self,
        model: &Qwen25Vl,
        items: &[Item],
        loss: &TapoLossConfig,
        normaliser: &Normaliser,
        device: &Device,
        sum: &mut GradientSum,
    ) -> Result<TapoParts, TrainError> {
        let negative_grad = loss.negative_grad && loss.needs_negative();
        let mut samples: Vec<SupervisedSequence> = items.iter().map(|item| item.update.clone()).collect();
        if negative_grad {
            samples.extend(items.iter().filter_map(|item| item.negative.clone()));
        }
        let scored = self.scorer.forward(model, &self.scorer.micro_batch(samples)?, device)?;

        // The loss sees log-probabilities as leaves; their gradients go back through the network together.
        let rows = ResponseRows::new(items.iter().map(|item| item.old_logp.len()));
        let constant = |values: Vec<f32>| {
            let count = values.len();
            rows.unpack(Tensor::<1>::from_data(TensorData::new(values, [count]), device))
        };
        let logp_n = scored.logp_n.clone().inner().autodiff().require_grad();
        let neg_logp_bt = if negative_grad {
            Some(rows.unpack(logp_n.clone().narrow(0, rows.tokens(), rows.tokens())))
        } else if loss.needs_negative() {
            Some(constant(items.iter().filter_map(|item| item.neg_logp.as_deref()).flatten().copied().collect()))
        } else {
            None
        };
        let ref_logp: Option<Vec<&[f32]>> = items.iter().map(|item| item.ref_logp.as_deref()).collect();
        let mask_bt = rows.mask(device);
        let advantages: Vec<f32> = items.iter().map(|item| item.advantage as f32).collect();
        let advantages = Tensor::<1>::from_data(TensorData::new(advantages, [items.len()]), device);
        let found = tapo_loss(
            TapoInputs {
                logp_bt: rows.unpack(logp_n.clone().narrow(0, 0, rows.tokens())),
                old_logp_bt: constant(items.iter().flat_map(|item| &item.old_logp).copied().collect()),
                neg_logp_bt,
                ref_logp_bt: ref_logp.map(|rows| constant(rows.concat())),
                advantages_bt: advantages.unsqueeze_dim::<2>(1).expand(mask_bt.dims()),
                mask_bt,
            },
            loss,
            normaliser,
        );
        let grads = found.total.backward();
        if let Some(grad) = logp_n.grad(&grads) {
            self.scorer.backward(model, scored, grad, sum);
        }
        Ok(found.parts)
    }
}

impl Item {
    /// What the update runs for this response.
    fn scored(&self, loss: &TapoLossConfig) -> impl Iterator<Item = &Sequence> {
        let negative = self.negative.as_ref().filter(|_| loss.negative_grad && loss.needs_negative());
        [Some(&self.update), negative].into_iter().flatten().map(|sample| &sample.sequence)
    }

    /// Tokens of it.
    fn tokens(&self, loss: &TapoLossConfig) -> usize {
        self.scored(loss).map(|sequence| sequence.ids.len()).sum()
    }
}

/// Operations of a forward pass over what the update runs for `items`.
fn flops(items: &[Item], loss: &TapoLossConfig, config: &Qwen25VlConfig) -> Flops {
    let targets = items.iter().map(|item| item.scored(loss).count() * item.old_logp.len()).sum();
    pass_flops(config, items.iter().flat_map(|item| item.scored(loss)), targets)
}

/// Response tokens and sequences.
fn size(items: &[Item]) -> BatchSize {
    BatchSize { tokens: items.iter().map(|item| item.old_logp.len()).sum(), sequences: items.len() }
}
