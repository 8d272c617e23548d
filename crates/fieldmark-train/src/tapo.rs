//! Triplet-augmented policy optimisation (paper 4.3): one step draws rollouts, keeps the groups worth learning from, and
//! makes a few updates of the loss in [`crate::tapo_loss`].
//!
//! Where the paper and its code differ, [`TapoConfig`] decides.

use std::time::Instant;

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use fieldmark_generate::{GenerationConfig, Sampling, StreamKey};
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::{Sequence, SupervisedSequence, Tokenizer};

use crate::{
    BatchSize, GradientSum, GroupBuffer, GroupVerdict, Normaliser, ResponseRows, RewardRegistry, RolloutGroup,
    RolloutMetrics, SamplerGap, TapoConfig, TapoInputs, TapoLossConfig, TapoMetrics, TapoParts, TrainError,
    UpdateImage, WeightedRewards, micro_batches,
    rollout::{Group, Role, RolloutCounts, TripletPrompt, mean, mean_parts, rollout_groups, truncated},
    scoring::Scorer,
    tapo_loss,
    update::Updater,
    workers::{on_replicas, sum_on_replicas},
};

/// Makes the prompts of a sample in an epoch.
pub trait TripletSource: Sync {
    /// Samples in an epoch.
    fn len(&self) -> usize;

    /// Whether there is nothing to train on.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sample `row` as it looks in `epoch`.
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
    Drawn(&'a RolloutMetrics),
    /// An update is made.
    Update(&'a TapoMetrics),
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

/// A run of TAPO: model, optimiser, surplus groups and data position.
///
/// With `kl_ref` other than 0, the model that [`Self::train`] starts from is kept as the reference model.
pub struct TapoTrainer<'a, S> {
    config: TapoConfig,
    source: &'a S,
    tokenizer: &'a Tokenizer,
    eos: Vec<u32>,
    rewards: WeightedRewards,
    streams: StreamKey,
    device: Device,
    scorer: Scorer,
    updater: Updater,
    buffer: GroupBuffer<Group>,
    reference: Option<Qwen25Vl>,
    steps: usize,
    drawn: usize,
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
            config,
            source,
            tokenizer,
            eos,
            rewards,
            streams,
            device: device.clone(),
            reference: None,
            steps,
            drawn: 0,
        })
    }

    /// The same with another number of steps than the passes over the data make.
    pub fn with_steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self.updater = self.updater.with_total(steps * self.config.updates_per_step());
        self
    }

    /// Steps of the whole run.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Trains to the end. Every event is shown to `on_event`; returning an error stops the run.
    ///
    /// # Errors
    /// If a prompt cannot be made or does not fit the model.
    pub fn train(
        &mut self,
        model: Qwen25Vl,
        mut on_event: impl FnMut(TapoEvent<'_>) -> Result<(), TrainError>,
    ) -> Result<Qwen25Vl, TrainError> {
        let mut model = model.with_trainable(self.config.train);
        self.reference = (self.config.loss.kl_ref != 0.0).then(|| model.valid());
        for step in 0..self.steps {
            let groups = self.draw(&model, step, &mut on_event)?;
            model = self.learn(model, groups, step, &mut on_event)?;
        }
        Ok(model)
    }

    /// Draws chunks until the step's groups are full or the tries are used up.
    fn draw(
        &mut self,
        model: &Qwen25Vl,
        step: usize,
        on_event: &mut impl FnMut(TapoEvent<'_>) -> Result<(), TrainError>,
    ) -> Result<Vec<Group>, TrainError> {
        let start = Instant::now();
        let sampler = model.valid();
        let device = self.device.clone().without_autodiff();
        let generation = GenerationConfig {
            sampling: Sampling::nucleus(self.config.temperature, self.config.top_p),
            max_batch: self.config.generation_batch,
            ..GenerationConfig::greedy(self.config.max_new_tokens, self.eos.clone())
        };
        let counts = RolloutCounts { anchor: self.config.anchor_rollouts, positive: self.config.positive_rollouts };
        let mut all = Vec::new();
        let mut chunk = 0;
        while self.buffer.wants_more() {
            let key = self.streams.word("rollout").number(step as u64).number(chunk);
            let prompts = self.next_prompts()?;
            let shares: Vec<(usize, &[TripletPrompt])> = {
                let share = prompts.len().div_ceil(self.config.workers.max(1)).max(1);
                prompts.chunks(share).enumerate().map(|(i, prompts)| (i * share, prompts)).collect()
            };
            let sampled = on_replicas(&sampler, &shares, self.config.workers, &device, |sampler, (first, prompts)| {
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
                    &device,
                )?;
                self.score_old(sampler, &mut groups, &device)?;
                Ok(groups)
            })?;
            let groups: Vec<Group> = sampled.into_iter().flatten().collect();
            on_event(TapoEvent::Rollouts(&groups))?;
            all.extend(groups.iter().cloned());
            self.buffer.offer(groups);
            chunk += 1;
        }
        let (groups, counts) = self.buffer.take();
        on_event(TapoEvent::Drawn(&RolloutMetrics {
            step: self.updater.done(),
            rollout_step: step + 1,
            reward: mean(&all, |_| true, |rollout| rollout.reward.overall),
            accuracy_anchor: mean(&all, |rollout| rollout.role == Role::Anchor, |rollout| rollout.reward.accuracy),
            accuracy_positive: mean(&all, |rollout| rollout.role == Role::Positive, |rollout| rollout.reward.accuracy),
            rewards: mean_parts(&all),
            response_tokens: mean(&all, |_| true, |rollout| rollout.response.ids.len() as f64),
            truncated: mean(&all, |_| true, truncated),
            sampler: SamplerGap::of(&all, self.config.update_image),
            groups: counts,
            seconds: start.elapsed().as_secs_f64(),
        }))?;
        Ok(groups)
    }

    /// The next chunk of samples; the order is shuffled anew in each epoch.
    fn next_prompts(&mut self) -> Result<Vec<TripletPrompt>, TrainError> {
        let rows = self.source.len();
        let mut prompts = Vec::with_capacity(self.config.chunk);
        let mut order = (usize::MAX, Vec::new());
        for _ in 0..self.config.chunk {
            let (epoch, place) = (self.drawn / rows, self.drawn % rows);
            if order.0 != epoch {
                order = (epoch, (0..rows).collect());
                self.streams.word("tapo").word("order").number(epoch as u64).stream().shuffle(&mut order.1);
            }
            prompts.push(self.source.prompt(order.1[place], epoch)?);
            self.drawn += 1;
        }
        Ok(prompts)
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

    /// The updates of one step.
    fn learn(
        &mut self,
        mut model: Qwen25Vl,
        mut groups: Vec<Group>,
        step: usize,
        on_event: &mut impl FnMut(TapoEvent<'_>) -> Result<(), TrainError>,
    ) -> Result<Qwen25Vl, TrainError> {
        self.config.estimator.over_step(&mut groups)?;
        let mut items: Vec<Item> = groups.iter().flat_map(|group| self.items(group)).collect();
        let loss = self.config.loss.scaled(self.config.terms.factor(step, self.steps));
        let device = self.device.clone().without_autodiff();
        let without = groups.iter().find(|group| group.prompt.negative.is_none());
        if let Some(group) = without.filter(|_| loss.needs_negative()) {
            let reason =
                "has no negative image, which tapo.loss.gamma and eta2 need; set both to 0 to do without".into();
            return Err(TrainError::Sample { row: group.prompt.anchor.name.clone(), reason });
        }
        if loss.needs_negative() && !loss.negative_grad {
            // As released: one pass for all updates of the step, before the first of them.
            let found = self.score(&model.valid(), items.iter().filter_map(|item| item.negative.as_ref()), &device)?;
            items.iter_mut().zip(found).for_each(|(item, found)| item.neg_logp = Some(found));
        }
        if let Some(reference) = &self.reference {
            let found = self.score(reference, items.iter().map(|item| &item.update), &device)?;
            items.iter_mut().zip(found).for_each(|(item, found)| item.ref_logp = Some(found));
        }
        for batch in items.chunks(self.config.batch) {
            let start = Instant::now();
            let lengths: Vec<usize> = batch.iter().map(|item| item.tokens(&loss)).collect();
            let micros: Vec<&[Item]> = micro_batches(&lengths, self.config.micro_batch, self.config.micro_tokens)
                .into_iter()
                .map(|range| &batch[range])
                .collect();
            let size = size(batch);
            let (shares, grads) =
                sum_on_replicas(&model, &micros, self.config.workers, &self.device, |model, micro, sum| {
                    let normaliser = self.config.loss_norm.normaliser(size, self::size(micro), micros.len());
                    let normaliser = normaliser.with_token_budget(self.config.max_new_tokens);
                    self.gradients(model, micro, &loss, &normaliser, sum)
                })?;
            let mut parts = TapoParts::default();
            shares.into_iter().for_each(|share| parts += share);
            let (next, updated) = self.updater.step(model, grads);
            model = next;
            on_event(TapoEvent::Update(&TapoMetrics {
                step: self.updater.done(),
                rollout_step: step + 1,
                parts,
                lr: updated.lr,
                grad_norm: updated.grad_norm,
                tokens: size.tokens,
                skipped: self.updater.skipped(),
                seconds: start.elapsed().as_secs_f64(),
            }))?;
        }
        Ok(model)
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
        sum: &mut GradientSum,
    ) -> Result<TapoParts, TrainError> {
        let negative_grad = loss.negative_grad && loss.needs_negative();
        let mut samples: Vec<SupervisedSequence> = items.iter().map(|item| item.update.clone()).collect();
        if negative_grad {
            samples.extend(items.iter().filter_map(|item| item.negative.clone()));
        }
        let scored = self.scorer.forward(model, &self.scorer.micro_batch(samples)?, &self.device)?;

        // The loss sees log-probabilities as leaves; their gradients go back through the network together.
        let rows = ResponseRows::new(items.iter().map(|item| item.old_logp.len()));
        let constant = |values: Vec<f32>| {
            let count = values.len();
            rows.unpack(Tensor::<1>::from_data(TensorData::new(values, [count]), &self.device))
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
        let mask_bt = rows.mask(&self.device);
        let advantages: Vec<f32> = items.iter().map(|item| item.advantage as f32).collect();
        let advantages = Tensor::<1>::from_data(TensorData::new(advantages, [items.len()]), &self.device);
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
    /// Tokens that the update runs for this response.
    fn tokens(&self, loss: &TapoLossConfig) -> usize {
        let negative = self.negative.as_ref().filter(|_| loss.negative_grad && loss.needs_negative());
        self.update.sequence.ids.len() + negative.map_or(0, |negative| negative.sequence.ids.len())
    }
}

/// Response tokens and sequences.
fn size(items: &[Item]) -> BatchSize {
    BatchSize { tokens: items.iter().map(|item| item.old_logp.len()).sum(), sequences: items.len() }
}
