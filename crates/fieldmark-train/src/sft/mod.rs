//! Supervised fine-tuning: mean of −log π(token) over the assistant's tokens of the whole accumulated batch.
//!
//! Reference: LLaMA-Factory's SFT as the paper used it, with two differences that `released` settings undo: one token mean
//! over all micro-batches ([`crate::LossNorm::Batch`]), and a warm-up that starts above 0 ([`crate::LrSchedule`]).

mod config;
mod gradients;
mod loss;
mod validation;

use std::{path::Path, time::Instant};

use burn::{module::Module, tensor::Device};
use fieldmark_model::{Flops, Qwen25Vl};
use fieldmark_processor::SupervisedSequence;
use fieldmark_stream::StreamKey;
use serde::{Deserialize, Serialize};

use crate::{
    Interrupt, LogEnd, TrainError, UpdateTiming,
    gradient::{MicroBatch, Scorer, micro_batches},
    metrics::SftMetrics,
    non_finite::{Streak, culprits},
    optim::grad_norm,
    parallel::Reduction,
    update::{Updated, Updater, UpdaterState},
    workers::Replicas,
};

pub use self::{
    config::SftConfig,
    gradients::{SftGradients, sft_gradients},
    validation::{Validation, validate_sft},
};

/// Makes the sample of a row in an epoch: where a training set crops or flips its images, it does so here.
pub trait SftSource {
    /// Rows in an epoch.
    fn len(&self) -> usize;

    /// Whether there is nothing to train on.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Row `row` as it looks in `epoch`.
    ///
    /// # Errors
    /// If the row cannot be read; the row is named.
    fn sample(&self, row: usize, epoch: usize) -> Result<SupervisedSequence, TrainError>;
}

/// A run of SFT between two updates, beside weights and moments. The place in the data is that of the update; random
/// streams have no state, since the epoch names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SftState {
    /// Rows of the source.
    pub rows: usize,
    /// Updates of the whole run.
    pub total: usize,
    /// Where the updates stand.
    pub updates: UpdaterState,
}

impl SftState {
    /// What the logs hold up to here.
    pub fn log_end(&self) -> LogEnd {
        LogEnd { step: self.updates.done, rollout_step: None }
    }
}

/// A run of SFT: optimiser and place in the data. Update by update it can be stopped, saved and restored.
///
/// Rows are shuffled anew in each epoch by the stream ("sft", "order", epoch).
pub struct SftTrainer<'a, S> {
    config: SftConfig,
    source: &'a S,
    validation: Option<&'a S>,
    streams: StreamKey,
    replicas: Replicas,
    scorer: Scorer,
    updater: Updater,
    total: usize,
    interrupt: Interrupt,
    streak: Streak,
    before_streak: Option<UpdaterState>,
    /// Epoch and its order.
    order: Option<(usize, Vec<usize>)>,
}

impl<'a, S: SftSource> SftTrainer<'a, S> {
    /// A run over `source`. `device` must track gradients.
    ///
    /// # Errors
    /// A setting out of range or an empty source.
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
        Ok(Self {
            scorer: config.scorer(pad_id)?,
            updater: Updater::new(model, config.adamw, config.schedule, config.max_grad_norm, total)?,
            replicas: Replicas::new(config.workers, device),
            config,
            source,
            validation: None,
            streams,
            total,
            interrupt: Interrupt::new(),
            streak: Streak::default(),
            before_streak: None,
            order: None,
        })
    }

    /// The same, but [`Self::train`] returns after the update in which `interrupt` asks it to.
    pub fn with_interrupt(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// The same with every update spread over `others` as well, devices that track gradients. `reduction` adds up what
    /// they find.
    pub fn with_devices(mut self, others: &[Device], reduction: Reduction) -> Self {
        self.replicas = self.replicas.with_devices(others, reduction);
        self
    }

    /// The same, but the loss on `rows` is measured every [`SftConfig::eval_every`] updates. A set without rows is none.
    pub fn with_validation(mut self, rows: &'a S) -> Self {
        self.validation = Some(rows).filter(|rows| !rows.is_empty());
        self
    }

    /// Continues where `state` was taken, with the moments from the file that [`Updater::save_optimizer`] wrote. The
    /// model's parameter ids must be [stable](crate::stable_param_ids), as they must have been when it was saved.
    ///
    /// # Errors
    /// If the moments cannot be read, or the state is that of a run over other data.
    pub fn restore(mut self, state: &SftState, moments: &Path) -> Result<Self, TrainError> {
        for (what, saved, found) in
            [("rows", state.rows, self.source.len()), ("updates in all", state.total, self.total)]
        {
            if saved != found {
                return Err(TrainError::OtherRun { what, saved, found });
            }
        }
        self.updater = self.updater.restore(state.updates, moments)?;
        Ok(self)
    }

    /// What to save beside weights and moments. While updates are being skipped it is the state before the first of them:
    /// they change neither weights nor moments, so that both still belong to it.
    pub fn state(&self) -> SftState {
        let updates = self.before_streak.unwrap_or(self.updater.state());
        SftState { rows: self.source.len(), total: self.total, updates }
    }

    /// Optimiser and schedule.
    pub fn updater(&self) -> &Updater {
        &self.updater
    }

    /// Updates of the whole run.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Whether every update is made.
    pub fn is_finished(&self) -> bool {
        self.updater.done() >= self.total
    }

    /// Why the run must not go on: too many updates in a row could not be made.
    pub fn fault(&self) -> Option<TrainError> {
        self.streak.fault(self.updater.skipped_in_a_row(), self.updater.done())
    }

    /// Makes the updates that are left, and shows what is measured at each. Returns earlier if the interrupt asks for it.
    ///
    /// # Errors
    /// If a sample cannot be made or does not fit the model, too many updates in a row are not finite, or `on_update` says
    /// so.
    pub fn train(
        &mut self,
        mut model: Qwen25Vl,
        mut on_update: impl FnMut(&SftMetrics, &UpdateTiming) -> Result<(), TrainError>,
    ) -> Result<Qwen25Vl, TrainError> {
        while !self.is_finished() && !self.interrupt.asked() {
            model = self.step(model, &mut on_update)?;
            if let Some(fault) = self.fault() {
                return Err(fault);
            }
        }
        Ok(model)
    }

    /// Makes one update, or none if the run [is finished](Self::is_finished). Whoever calls this looks at
    /// [`Self::fault`] after it.
    ///
    /// # Errors
    /// If a sample cannot be made or does not fit the model, or `on_update` says so.
    pub fn step(
        &mut self,
        model: Qwen25Vl,
        mut on_update: impl FnMut(&SftMetrics, &UpdateTiming) -> Result<(), TrainError>,
    ) -> Result<Qwen25Vl, TrainError> {
        if self.is_finished() {
            return Ok(model);
        }
        let start = Instant::now();
        let model = model.with_trainable(self.config.train);
        let (epoch, rows, seen) = self.next_rows();
        let samples = self.samples(&rows, epoch)?;
        let lengths: Vec<usize> = samples.iter().map(|sample| sample.sequence.ids.len()).collect();
        let cuts = micro_batches(&lengths, self.config.micro_batch, self.config.micro_tokens);
        let mut samples = samples.into_iter();
        let micros: Vec<MicroBatch> = cuts
            .iter()
            .map(|cut| self.scorer.micro_batch(samples.by_ref().take(cut.len()).collect()))
            .collect::<Result<_, _>>()?;
        let SftGradients { loss, size, grads } =
            sft_gradients(&model, &self.scorer, &micros, self.config.loss_norm, &self.replicas)?;
        let before = self.updater.state();
        let (model, Updated { lr, grad_norm, skipped }) = self.updater.step(model, loss, grads);
        let cut_rows = || cuts.iter().map(|cut| &rows[cut.clone()]).collect::<Vec<_>>();
        let non_finite = if skipped { self.culprits(&model, &cut_rows(), epoch)? } else { Vec::new() };
        if skipped {
            self.before_streak.get_or_insert(before);
            self.streak.add(&non_finite);
        } else {
            self.before_streak = None;
            self.streak.clear();
        }
        let adapters = model.adapter_sizes();
        let needed: Flops = micros.iter().map(|micro| micro.flops(model.config(), adapters)).sum();
        let flops = needed.training(self.config.train);
        let mut timing = UpdateTiming::new(self.updater.done(), None, lengths.iter().sum(), flops, start.elapsed());
        let clock = Instant::now();
        let due = self.config.validates(self.updater.done(), self.source.len());
        let validation = self.validation.filter(|_| due).map(|rows| {
            validate_sft(&model.valid(), &self.scorer, rows, &self.config, &self.replicas.without_autodiff())
        });
        let validation = validation.transpose()?;
        if validation.is_some() {
            timing = timing.with_validation(clock.elapsed());
        }
        let metrics = SftMetrics {
            step: self.updater.done(),
            epoch: epoch as f64 + seen as f64 / self.source.len() as f64,
            loss,
            lr,
            grad_norm,
            tokens: size.tokens,
            skipped: self.updater.skipped(),
            non_finite,
            validation,
        };
        on_update(&metrics, &timing)?;
        Ok(model)
    }

    /// Epoch and rows of the next update, and the rows of that epoch seen after it.
    fn next_rows(&mut self) -> (usize, Vec<usize>, usize) {
        let rows = self.source.len();
        let per_epoch = rows.div_ceil(self.config.batch);
        let (epoch, place) = (self.updater.done() / per_epoch, self.updater.done() % per_epoch * self.config.batch);
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

    /// Names of the rows whose loss or gradient is not finite.
    fn culprits(&self, model: &Qwen25Vl, micros: &[&[usize]], epoch: usize) -> Result<Vec<String>, TrainError> {
        culprits(micros, |rows| {
            let micro = self.scorer.micro_batch(self.samples(rows, epoch)?)?;
            let names = micro.names().map(str::to_owned).collect();
            let norm = self.config.loss_norm;
            let found = sft_gradients(model, &self.scorer, &[micro], norm, &self.replicas)?;
            let finite = found.loss.is_finite() && grad_norm(&found.grads, model).is_finite();
            Ok((!finite).then_some(names))
        })
    }
}

/// Trains `model`, which must be on an autodiff device, from the first update to the last; [`SftTrainer`] can stop between.
///
/// # Errors
/// Those of [`SftTrainer::new`] and [`SftTrainer::train`].
pub fn train_sft(
    model: Qwen25Vl,
    source: &impl SftSource,
    config: &SftConfig,
    pad_id: u32,
    streams: &StreamKey,
    device: &Device,
    on_update: impl FnMut(&SftMetrics, &UpdateTiming) -> Result<(), TrainError>,
) -> Result<Qwen25Vl, TrainError> {
    SftTrainer::new(&model, source, config.clone(), pad_id, streams.clone(), device)?.train(model, on_update)
}
