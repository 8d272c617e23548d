//! The updates of a step: loss and gradients of each micro-batch, the optimiser's step, and the samples at fault if a
//! number is not finite.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use fieldmark_model::{Flops, Qwen25Vl};

use super::{
    config::TapoConfig,
    items::{Item, Step, chosen_size, scored, size},
    loss::{PolicyTokens, TapoInputs, TapoParts, tapo_loss},
    loss_config::TapoLossConfig,
    metrics::TapoMetrics,
    state::TapoState,
};
use crate::{
    TrainError,
    gradient::{BatchSize, GradientSum, Normaliser, ResponseRows, Scorer, SharedRow, micro_batches},
    optim::grad_norm,
    parallel::sum_on_replicas,
    trainer::{Engine, UpdateTiming, culprits},
};

/// The updates of rollout step `step` (from 0) of `steps`.
pub(super) struct Updates<'a> {
    pub(super) config: &'a TapoConfig,
    pub(super) loss: &'a TapoLossConfig,
    pub(super) steps: usize,
    pub(super) step: usize,
}

/// The divisors of the means of one micro-batch: over all response tokens, and over those whose policy loss counts.
struct Divisors {
    all: Normaliser,
    policy: Normaliser,
}

impl Updates<'_> {
    /// Makes the next update of a step. If it is skipped, the metrics name the samples at fault.
    pub(super) fn make(
        &self,
        model: Qwen25Vl,
        engine: &mut Engine<TapoState>,
        step: &Step,
    ) -> Result<(Qwen25Vl, TapoMetrics, UpdateTiming), TrainError> {
        let (clock, config) = (Instant::now(), self.config);
        let from = step.updates * config.batch;
        let batch = &step.items[from..step.items.len().min(from + config.batch)];
        let cuts =
            micro_batches(batch.len(), config.micro_batch, config.micro_tokens, |range| self.read(&batch[range]));
        let micros: Vec<&[Item]> = cuts.into_iter().map(|range| &batch[range]).collect();
        let all = size(batch);
        let scorer = &engine.scorer;
        let (shares, grads) = sum_on_replicas(&model, &micros, &engine.replicas, |model, micro, device, sum| {
            self.gradients(scorer, model, micro, &self.divisors(batch, micro, micros.len()), device, sum)
        })?;
        let (mut parts, mut needed) = (TapoParts::default(), Flops::default());
        for (share, flops) in shares {
            parts += share;
            needed += flops;
        }
        let lr = self.lr(engine);
        let before = engine.updater.done();
        let age = batch.iter().map(|item| before.saturating_sub(item.sampled) as f64).sum::<f64>() / batch.len() as f64;
        let idle = engine.updater.idle_parts(&model, &grads);
        let (model, updated) = engine.updater.step_at(lr, model, parts.loss, grads);
        let non_finite = if updated.skipped { self.culprits(engine, &model, &micros)? } else { Vec::new() };
        let metrics = TapoMetrics {
            step: engine.updater.done(),
            rollout_step: self.step + 1,
            parts,
            lr: updated.lr,
            grad_norm: updated.grad_norm,
            tokens: all.tokens,
            skipped: engine.updater.skipped(),
            rollout_age: age,
            idle: idle.into_iter().map(|part| part.name().to_owned()).collect(),
            non_finite,
        };
        let tokens = batch.iter().map(|item| item.tokens(self.loss)).sum();
        let flops = needed.training(config.train);
        let timing = UpdateTiming::new(metrics.step, Some(metrics.rollout_step), tokens, flops, clock.elapsed());
        Ok((model, metrics, timing))
    }

    /// The learning rate of the next update. The released code's schedule counts rollout steps, so all updates of a
    /// step have the same rate.
    fn lr(&self, engine: &Engine<TapoState>) -> f64 {
        let schedule = self.config.schedule;
        if schedule.released { schedule.at(self.step, self.steps) } else { engine.updater.lr() }
    }

    /// The divisors for one of the `micros` micro-batches that `update` is cut into.
    fn divisors(&self, update: &[Item], micro: &[Item], micros: usize) -> Divisors {
        let of = |size: fn(&[Item]) -> BatchSize| {
            let normaliser = self.config.loss_norm.normaliser(size(update), size(micro), micros);
            normaliser.with_token_budget(self.config.max_new_tokens)
        };
        Divisors { all: of(size), policy: of(chosen_size) }
    }

    /// Number of tokens that the network reads in a micro-batch of `items`. In a packed row, a prompt that responses share
    /// is read once.
    fn read(&self, items: &[Item]) -> usize {
        if self.config.packing {
            SharedRow::new(&scored(items, self.loss).cloned().collect::<Vec<_>>()).tokens()
        } else {
            items.iter().map(|item| item.tokens(self.loss)).sum()
        }
    }

    /// Computes one micro-batch's share of the loss and adds its gradients to `sum`. Also returns the operations of its
    /// forward pass.
    ///
    /// The sequences with negative images are in the same micro-batch, after the sequences with the update's images.
    fn gradients(
        &self,
        scorer: &Scorer,
        model: &Qwen25Vl,
        items: &[Item],
        divisors: &Divisors,
        device: &Device,
        sum: &mut GradientSum,
    ) -> Result<(TapoParts, Flops), TrainError> {
        let loss = self.loss;
        let negative_grad = loss.negative_grad && loss.needs_negative();
        let micro = scorer.micro_batch(scored(items, loss).cloned().collect())?;
        let flops = micro.flops(model.config(), model.adapter_sizes());
        let scored = scorer.forward(model, &micro, device)?;

        // For the loss, log-probabilities are leaves. Their gradients then go through the network in one backward pass.
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
        let chosen: Option<Vec<&[bool]>> = items.iter().map(|item| item.chosen.as_deref()).collect();
        let chosen = chosen.map(|rows| constant(rows.concat().into_iter().map(f32::from).collect()));
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
                policy_tokens: chosen.map(|mask_bt| PolicyTokens { mask_bt, normaliser: divisors.policy }),
            },
            loss,
            &divisors.all,
        );
        let grads = found.total.backward();
        if let Some(grad) = logp_n.grad(&grads) {
            scorer.backward(model, scored, grad, sum);
        }
        Ok((found.parts, flops))
    }

    /// Names the samples whose loss or gradient is not finite.
    fn culprits(
        &self,
        engine: &Engine<TapoState>,
        model: &Qwen25Vl,
        micros: &[&[Item]],
    ) -> Result<Vec<String>, TrainError> {
        culprits(micros, |items| {
            let divisors = self.divisors(items, items, 1);
            let (mut sum, device) = (GradientSum::new(), engine.replicas.main());
            let (parts, _) = self.gradients(&engine.scorer, model, items, &divisors, device, &mut sum)?;
            let finite = parts.loss.is_finite() && grad_norm(&sum.into_grads(), model).is_finite();
            Ok((!finite).then(|| items.iter().map(|item| item.update.sequence.name.clone()).collect()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::items::attach;
    use fieldmark_processor::Sequence;

    fn item(prompt: &[u32], negative: &[u32], response: &[u32]) -> Item {
        let about = |ids: &[u32]| Sequence { name: "sample".into(), ids: ids.to_vec(), images: Vec::new() };
        Item {
            update: attach(&about(prompt), response),
            negative: Some(attach(&about(negative), response)),
            advantage: 1.0,
            old_logp: vec![-1.0; response.len()],
            sampled: 0,
            sampler_logp: None,
            neg_logp: None,
            ref_logp: None,
            chosen: None,
        }
    }

    #[test]
    fn a_micro_batch_reads_a_prompt_once_if_it_is_packed() {
        // Two responses to one prompt, one to another; prompts of 3, 4, 2 and 5 tokens.
        let (first, second) =
            ([[10, 11, 12].as_slice(), &[13, 14, 15, 16]], [[17, 18].as_slice(), &[19, 20, 21, 22, 23]]);
        let items =
            [item(first[0], first[1], &[1]), item(first[0], first[1], &[2, 3]), item(second[0], second[1], &[4])];
        let read = |packing, negative_grad| {
            let config = TapoConfig { packing, ..TapoConfig::default() };
            let loss = TapoLossConfig { negative_grad, ..TapoLossConfig::default() };
            Updates { config: &config, loss: &loss, steps: 1, step: 0 }.read(&items)
        };
        assert_eq!(read(true, true), (3 + 1 + 2) + (2 + 1) + (4 + 1 + 2) + (5 + 1));
        assert_eq!(read(false, true), (4 + 5 + 3) + (5 + 6 + 6));
        assert_eq!(read(true, false), (3 + 1 + 2) + (2 + 1));
    }
}
