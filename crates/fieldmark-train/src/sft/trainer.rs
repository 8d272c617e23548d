//! Makes the updates of SFT: order of the rows, gradients, the optimiser's step, validation.

use std::{ops::Range, path::Path, time::Instant};

use burn::{module::Module, tensor::Device};
use fieldmark_model::{Flops, Qwen25Vl};
use fieldmark_processor::SupervisedSequence;
use fieldmark_stream::StreamKey;

use crate::{
    TrainError, Trainer,
    gradient::{MicroBatch, micro_batches},
    optim::grad_norm,
    parallel::{Reduction, Replicas},
    trainer::{
        Direction, Engine, Interrupt, Mark, OnEvent, Score, TrainEvent, UpdateTiming, Updated, Updater, Verdict,
        culprits, idle_findings,
    },
};

use super::{
    SftConfig, SftGradients, SftMetrics, SftSource, SftState, Unscored, gradients::sft_gradients,
    validation::validate_sft,
};

/// The metric that decides which checkpoint is the best.
const METRIC: &str = "loss on the validation set";

/// A run of SFT. It can be stopped, saved and restored after every update.
///
/// The stream ("sft", "order", epoch) shuffles the rows in each epoch.
pub struct SftTrainer<'a, S> {
    config: SftConfig,
    source: &'a S,
    validation: Option<&'a S>,
    streams: StreamKey,
    engine: Engine<SftState>,
    total: usize,
    /// The last update, if it is not reported because its validation was stopped.
    unscored: Option<Unscored>,
    /// The current epoch and its order of rows.
    order: Option<(usize, Vec<usize>)>,
}

impl<'a, S: SftSource> SftTrainer<'a, S> {
    /// Creates a run over the rows of `source`. `device` must track gradients.
    ///
    /// # Errors
    /// Returns an error if a setting is out of range or the source is empty.
    pub fn new(
        model: &Qwen25Vl,
        source: &'a S,
        config: SftConfig,
        pad_id: u32,
        streams: StreamKey,
        device: &Device,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        if source.is_empty() {
            return Err(TrainError::EmptySource);
        }
        let total = config.updates(source.len());
        let (replicas, scorer) = (Replicas::new(config.workers, device), config.scorer(pad_id)?);
        let optimiser = (config.adamw, config.schedule, config.max_grad_norm);
        let engine = Engine::new(model, replicas, scorer, optimiser, total)?;
        Ok(Self { config, source, validation: None, streams, engine, total, unscored: None, order: None })
    }

    /// Sets the flag that stops [`Trainer::train`] after the current update.
    pub fn with_interrupt(mut self, interrupt: Interrupt) -> Self {
        self.engine.interrupt = interrupt;
        self
    }

    /// Spreads every update over the devices `others` as well. They must track gradients. `reduction` sets how their
    /// gradients are summed.
    pub fn with_devices(mut self, others: &[Device], reduction: Reduction) -> Self {
        self.engine.replicas = self.engine.replicas.with_devices(others, reduction);
        self
    }

    /// Measures the loss on `rows` every [`SftConfig::eval_every`] updates. An empty set is ignored.
    pub fn with_validation(mut self, rows: &'a S) -> Self {
        self.validation = Some(rows).filter(|rows| !rows.is_empty());
        self
    }

    /// Continues from `state` with the moments in the file that [`Updater::save_optimizer`] wrote. The model's
    /// parameter ids must be [stable](crate::params::stable_param_ids), both now and when the state was saved.
    ///
    /// # Errors
    /// Returns an error if the moments cannot be read, or if the state belongs to a run over other data.
    pub fn restore(mut self, state: &SftState, moments: &Path) -> Result<Self, TrainError> {
        for (what, saved, found) in [("rows", state.rows, self.source.len()), ("updates", state.total, self.total)] {
            if saved != found {
                return Err(TrainError::OtherRun { what, saved, found });
            }
        }
        self.engine.updater = self.engine.updater.restore(state.updates, moments)?;
        self.unscored = state.unscored.clone();
        Ok(self)
    }

    /// Makes the next update. If it is skipped, the metrics name the samples at fault.
    fn update(&mut self, model: Qwen25Vl) -> Result<(Qwen25Vl, SftMetrics, UpdateTiming), TrainError> {
        let start = Instant::now();
        let (epoch, rows, seen) = self.next_rows();
        let samples = self.samples(&rows, epoch)?;
        let lengths: Vec<usize> = samples.iter().map(|sample| sample.sequence.ids.len()).collect();
        let SftConfig { micro_batch, micro_tokens, .. } = self.config;
        let cuts = micro_batches(lengths.len(), micro_batch, micro_tokens, |range| lengths[range].iter().sum());
        let mut samples = samples.into_iter();
        let micros: Vec<MicroBatch> = cuts
            .iter()
            .map(|cut| self.engine.scorer.micro_batch(samples.by_ref().take(cut.len()).collect()))
            .collect::<Result<_, _>>()?;
        let SftGradients { loss, size, grads } =
            sft_gradients(&model, &self.engine.scorer, &micros, self.config.loss_norm, &self.engine.replicas)?;
        let before = self.current();
        let idle = self.engine.updater.idle_parts(&model, &grads);
        let (model, Updated { lr, grad_norm, skipped }) = self.engine.updater.step(model, loss, grads);
        let non_finite = if skipped { self.culprits(&model, &cuts, &rows, epoch)? } else { Vec::new() };
        if skipped {
            self.engine.streak.add(&non_finite, || before);
        } else {
            self.engine.streak.clear();
        }
        let adapters = model.adapter_sizes();
        let needed: Flops = micros.iter().map(|micro| micro.flops(model.config(), adapters)).sum();
        let flops = needed.training(self.config.train);
        let timing = UpdateTiming::new(self.done(), None, lengths.iter().sum(), flops, start.elapsed());
        let metrics = SftMetrics {
            step: self.done(),
            epoch: epoch as f64 + seen as f64 / self.source.len() as f64,
            loss,
            lr,
            grad_norm,
            tokens: size.tokens,
            skipped: self.engine.updater.skipped(),
            idle: idle.into_iter().map(|part| part.name().to_owned()).collect(),
            non_finite,
            validation: None,
        };
        Ok((model, metrics, timing))
    }

    /// Adds the loss on the validation set to an update if there is a set and it is due. Returns false if that was
    /// stopped.
    fn validate(&self, model: &Qwen25Vl, update: &mut Unscored) -> Result<bool, TrainError> {
        let due = self.config.validates(self.done(), self.source.len());
        let Some(rows) = self.validation.filter(|_| due) else { return Ok(true) };
        let (clock, replicas) = (Instant::now(), self.engine.replicas.without_autodiff());
        let Engine { scorer, interrupt, .. } = &self.engine;
        update.metrics.validation = validate_sft(&model.valid(), scorer, rows, &self.config, &replicas, interrupt)?;
        update.timing = update.timing.clone().with_validation(clock.elapsed());
        Ok(update.metrics.validation.is_some())
    }

    fn current(&self) -> SftState {
        SftState {
            rows: self.source.len(),
            total: self.total,
            updates: self.engine.updater.state(),
            unscored: self.unscored.clone(),
        }
    }

    /// Returns the epoch and the rows of the next update, and the number of rows of the epoch seen after it.
    fn next_rows(&mut self) -> (usize, Vec<usize>, usize) {
        let rows = self.source.len();
        let per_epoch = rows.div_ceil(self.config.batch);
        let (epoch, place) = (self.done() / per_epoch, self.done() % per_epoch * self.config.batch);
        let streams = &self.streams;
        let shuffled = |epoch: usize| {
            let mut order: Vec<usize> = (0..rows).collect();
            streams.word("sft").word("order").number(epoch as u64).stream().shuffle(&mut order);
            (epoch, order)
        };
        let (_, order) = match self.order.take() {
            Some(known) if known.0 == epoch => self.order.insert(known),
            _ => self.order.insert(shuffled(epoch)),
        };
        let end = rows.min(place + self.config.batch);
        (epoch, order[place..end].to_vec(), end)
    }

    fn samples(&self, rows: &[usize], epoch: usize) -> Result<Vec<SupervisedSequence>, TrainError> {
        rows.iter().map(|&row| self.source.sample(row, epoch)).collect()
    }

    /// Names the rows whose loss or gradient is not finite.
    fn culprits(
        &self,
        model: &Qwen25Vl,
        cuts: &[Range<usize>],
        rows: &[usize],
        epoch: usize,
    ) -> Result<Vec<String>, TrainError> {
        let micros: Vec<&[usize]> = cuts.iter().map(|cut| &rows[cut.clone()]).collect();
        let Engine { scorer, replicas, .. } = &self.engine;
        culprits(&micros, |rows| {
            let micro = scorer.micro_batch(self.samples(rows, epoch)?)?;
            let names = micro.names().map(str::to_owned).collect();
            let found = sft_gradients(model, scorer, &[micro], self.config.loss_norm, replicas)?;
            let finite = found.loss.is_finite() && grad_norm(&found.grads, model).is_finite();
            Ok((!finite).then_some(names))
        })
    }
}

impl<S: SftSource> Trainer for SftTrainer<'_, S> {
    type State = SftState;

    fn step(&mut self, model: Qwen25Vl, on_event: &mut OnEvent<'_>) -> Result<(Qwen25Vl, Verdict), TrainError> {
        if self.is_finished() {
            return Ok((model, Verdict::default()));
        }
        let model = model.with_trainable(self.config.train);
        let (model, mut update) = match self.unscored.take() {
            Some(update) => (model, update),
            None => {
                let (model, metrics, timing) = self.update(model)?;
                (model, Unscored { metrics, timing })
            }
        };
        if !self.validate(&model, &mut update)? {
            // The update is reported when its validation is done: its row has both.
            self.unscored = Some(update);
            return Ok((model, Verdict { score: None, fault: self.engine.fault() }));
        }
        let Unscored { metrics, timing } = update;
        on_event(TrainEvent::SftUpdate(&metrics, &timing))?;
        idle_findings(metrics.step, &metrics.idle).iter().try_for_each(|found| on_event(TrainEvent::Finding(found)))?;
        // Only the loss on the validation set compares two models: the batches differ between updates. A skipped update
        // did not change the model.
        let mark = self.mark();
        let loss =
            metrics.validation.map(|found| found.loss).filter(|loss| loss.is_finite() && mark.step == self.done());
        let score = loss.map(|value| Score { metric: METRIC, value, direction: Direction::Lower, mark });
        Ok((model, Verdict { score, fault: self.engine.fault() }))
    }

    fn done(&self) -> usize {
        self.engine.updater.done()
    }

    fn total(&self) -> usize {
        self.total
    }

    fn mark(&self) -> Mark {
        Mark { step: self.state().updates.done, updates: 0 }
    }

    fn state(&self) -> SftState {
        self.engine.streak.before().cloned().unwrap_or_else(|| self.current())
    }

    fn is_finished(&self) -> bool {
        self.done() >= self.total && self.unscored.is_none()
    }

    fn updater(&self) -> &Updater {
        &self.engine.updater
    }

    fn interrupt(&self) -> &Interrupt {
        &self.engine.interrupt
    }
}

/// Trains `model` from the first update to the last. `device`, the device of the model, must track gradients. To stop
/// in between, use [`SftTrainer`].
///
/// # Errors
/// Returns the errors of [`SftTrainer::new`] and [`Trainer::train`].
pub fn train_sft(
    model: Qwen25Vl,
    source: &impl SftSource,
    config: &SftConfig,
    pad_id: u32,
    streams: &StreamKey,
    device: &Device,
    mut on_update: impl FnMut(&SftMetrics, &UpdateTiming) -> Result<(), TrainError>,
) -> Result<Qwen25Vl, TrainError> {
    let mut trainer = SftTrainer::new(&model, source, config.clone(), pad_id, streams.clone(), device)?;
    trainer.train(model, |event| match event {
        TrainEvent::SftUpdate(metrics, timing) => on_update(metrics, timing),
        _ => Ok(()),
    })
}
