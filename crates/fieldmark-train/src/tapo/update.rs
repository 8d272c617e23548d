//! The updates of a step: each micro-batch's loss and its gradients, the optimiser's step, and what to do where a number is
//! not finite.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use fieldmark_model::{Flops, Qwen25Vl};
use fieldmark_processor::SupervisedSequence;

use super::{
    TapoEvent, TapoInputs, TapoLossConfig, TapoParts, TapoState, TapoTrainer, TripletSource,
    items::{Item, Step, flops, size},
    tapo_loss,
};
use crate::{
    TapoMetrics, TrainError, UpdateTiming,
    gradient::{GradientSum, Normaliser, ResponseRows, micro_batches},
    non_finite::culprits,
    optim::grad_norm,
    workers::sum_on_replicas,
};

impl<S: TripletSource> TapoTrainer<'_, S> {
    /// The updates of one step that are left. `start` is the state before it.
    pub(super) fn learn(
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
            let all = size(batch);
            let (shares, grads) = sum_on_replicas(&model, &micros, &self.replicas, |model, micro, device, sum| {
                let normaliser = self.config.loss_norm.normaliser(all, size(micro), micros.len());
                let normaliser = normaliser.with_token_budget(self.config.max_new_tokens);
                self.gradients(model, micro, &loss, &normaliser, device, sum)
            })?;
            let mut parts = TapoParts::default();
            shares.into_iter().for_each(|share| parts += share);
            let before = self.updater.state();
            let (next, updated) = self.updater.step_at(self.lr(), model, parts.loss, grads);
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
                tokens: all.tokens,
                skipped: self.updater.skipped(),
                non_finite,
            };
            let tokens = lengths.iter().sum();
            let (config, adapters) = (model.config(), model.adapter_sizes());
            let needed: Flops = micros.iter().map(|micro| flops(micro, &loss, config, adapters)).sum();
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

    /// The rate of the next update. The released code's schedule counts rollout steps: all updates of one have the same rate.
    fn lr(&self) -> f64 {
        let schedule = self.config.schedule;
        if schedule.released { schedule.at(self.step, self.steps) } else { self.updater.lr() }
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
        let sampler_logp: Option<Vec<&[f32]>> = items.iter().map(|item| item.sampler_logp.as_deref()).collect();
        let mask_bt = rows.mask(device);
        let advantages: Vec<f32> = items.iter().map(|item| item.advantage as f32).collect();
        let advantages = Tensor::<1>::from_data(TensorData::new(advantages, [items.len()]), device);
        let found = tapo_loss(
            TapoInputs {
                logp_bt: rows.unpack(logp_n.clone().narrow(0, 0, rows.tokens())),
                old_logp_bt: constant(items.iter().flat_map(|item| &item.old_logp).copied().collect()),
                sampler_logp_bt: sampler_logp.map(|rows| constant(rows.concat())),
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
}
