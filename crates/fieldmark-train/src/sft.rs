//! Supervised fine-tuning: mean of −log π(token) over the assistant's tokens of the whole accumulated batch.
//!
//! Reference: LLaMA-Factory's SFT as the paper used it, with two differences that `released` settings undo: one token mean
//! over all micro-batches ([`LossNorm::Batch`]), and a warm-up that starts above 0 ([`LrSchedule`]).

use std::time::Instant;

use burn::tensor::Device;
use fieldmark_generate::StreamKey;
use fieldmark_model::{Qwen25Vl, TrainableParts};
use fieldmark_processor::SupervisedSequence;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AdamWSettings, BatchSize, LossNorm, LrSchedule, TrainError, TrunkSettings,
    metrics::SftMetrics,
    micro_batches,
    scoring::{MicroBatch, Scorer},
    sft_loss::{sft_loss, sft_loss_grad},
    update::{Updated, Updater},
    workers::sum_on_replicas,
};

/// Everything that decides how SFT runs. The defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SftConfig {
    /// Passes over the data.
    pub epochs: usize,
    /// Sequences an update.
    pub batch: usize,
    /// Sequences in memory at once, at most.
    pub micro_batch: usize,
    /// Tokens in memory at once, at most; a longer sequence is alone. 0 sets no limit.
    pub micro_tokens: usize,
    /// Whether the sequences of a micro-batch lie one after another, each attending to itself alone, instead of being
    /// padded to the longest. The result is the same.
    pub packing: bool,
    /// Whether blocks are run again in the backward pass instead of keeping what they computed.
    pub recompute: bool,
    /// Queries whose attention scores exist at once in the backward pass; 0 is all.
    pub query_chunk: usize,
    /// Micro-batches computed side by side: up to the number of cores on a CPU, 1 on a GPU.
    pub workers: usize,
    /// Learning rate over the run.
    pub schedule: LrSchedule,
    /// The optimiser's constants.
    pub adamw: AdamWSettings,
    /// The gradients' global norm is cut to this.
    pub max_grad_norm: f64,
    /// What the loss is a mean over.
    pub loss_norm: LossNorm,
    /// Which parts learn.
    pub train: TrainableParts,
    /// States that meet the vocabulary at once.
    pub logit_chunk: usize,
}

impl Default for SftConfig {
    fn default() -> Self {
        Self {
            epochs: 10,
            batch: 64,
            micro_batch: 4,
            micro_tokens: 0,
            packing: true,
            recompute: true,
            query_chunk: 512,
            workers: 1,
            schedule: LrSchedule::default(),
            adamw: AdamWSettings { weight_decay: 0.1, ..AdamWSettings::default() },
            max_grad_norm: 1.0,
            loss_norm: LossNorm::Batch,
            train: TrainableParts { vision: false, projector: false, decoder: true },
            logit_chunk: 1024,
        }
    }
}

impl SftConfig {
    /// Updates of a run over `rows` rows: the last batch of an epoch may be smaller.
    pub fn updates(&self, rows: usize) -> usize {
        self.epochs * rows.div_ceil(self.batch.max(1))
    }

    /// How micro-batches are scored.
    ///
    /// # Errors
    /// A chunk of 0.
    pub fn scorer(&self, pad_id: u32) -> Result<Scorer, TrainError> {
        let trunk = TrunkSettings { recompute: self.recompute, query_chunk: self.query_chunk };
        Ok(Scorer::new(self.logit_chunk, 1.0, pad_id)?.with_trunk(trunk).with_packing(self.packing))
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// The first that is out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        let counts = [
            ("epochs", self.epochs),
            ("batch", self.batch),
            ("micro_batch", self.micro_batch),
            ("logit_chunk", self.logit_chunk),
        ];
        for (key, value) in counts {
            if value == 0 {
                return Err(TrainError::Setting { key, value: "0".into(), expected: "at least 1" });
            }
        }
        self.schedule.validate()
    }
}

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

/// Loss of one update and its gradients, before the optimiser sees them.
pub struct SftGradients {
    /// The update's loss.
    pub loss: f64,
    /// What it is a mean over.
    pub size: BatchSize,
    /// Gradients of every trainable parameter.
    pub grads: burn::optim::GradientsParams,
}

/// Loss and gradients of one accumulated batch, `workers` micro-batches at a time.
///
/// # Errors
/// If a sample does not fit the model, or has no token in the loss.
pub fn sft_gradients(
    model: &Qwen25Vl,
    scorer: &Scorer,
    micros: &[MicroBatch],
    norm: LossNorm,
    workers: usize,
    device: &Device,
) -> Result<SftGradients, TrainError> {
    let size = micros.iter().fold(BatchSize { tokens: 0, sequences: 0 }, |sum, micro| BatchSize {
        tokens: sum.tokens + micro.size().tokens,
        sequences: sum.sequences + micro.size().sequences,
    });
    let (losses, grads) = sum_on_replicas(model, micros, workers, device, |model, micro, sum| {
        let normaliser = norm.normaliser(size, micro.size(), micros.len());
        let scored = scorer.forward(model, micro, device)?;
        let loss = sft_loss(scored.logp_n.clone(), &normaliser).into_scalar::<f64>();
        let grad = sft_loss_grad(&scored.logp_n, &normaliser);
        scorer.backward(model, scored, grad, sum);
        Ok(loss)
    })?;
    Ok(SftGradients { loss: losses.iter().sum(), size, grads })
}

/// Trains `model`, which must be on an autodiff device, and shows the metrics of every update to `on_update`.
///
/// Rows are shuffled anew in each epoch by the stream ("sft", "order", epoch).
///
/// # Errors
/// A setting out of range, an empty source, or a sample that cannot be made or does not fit the model.
pub fn train_sft(
    model: Qwen25Vl,
    source: &impl SftSource,
    config: &SftConfig,
    pad_id: u32,
    streams: &StreamKey,
    device: &Device,
    mut on_update: impl FnMut(&SftMetrics) -> Result<(), TrainError>,
) -> Result<Qwen25Vl, TrainError> {
    config.validate()?;
    if source.is_empty() {
        return Err(TrainError::EmptySource);
    }
    let mut model = model.with_trainable(config.train);
    let scorer = config.scorer(pad_id)?;
    let updates = config.updates(source.len());
    let mut updater = Updater::new(&model, config.adamw, config.schedule, config.max_grad_norm, updates)?;
    for epoch in 0..config.epochs {
        let mut order: Vec<usize> = (0..source.len()).collect();
        streams.word("sft").word("order").number(epoch as u64).stream().shuffle(&mut order);
        let mut seen = 0;
        for rows in order.chunks(config.batch) {
            let start = Instant::now();
            let mut samples =
                rows.iter().map(|&row| source.sample(row, epoch)).collect::<Result<Vec<_>, _>>()?.into_iter();
            let lengths: Vec<usize> = samples.as_slice().iter().map(|sample| sample.sequence.ids.len()).collect();
            let micros = micro_batches(&lengths, config.micro_batch, config.micro_tokens)
                .into_iter()
                .map(|range| scorer.micro_batch(samples.by_ref().take(range.len()).collect()))
                .collect::<Result<Vec<_>, _>>()?;
            let SftGradients { loss, size, grads } =
                sft_gradients(&model, &scorer, &micros, config.loss_norm, config.workers, device)?;
            let (next, Updated { lr, grad_norm, .. }) = updater.step(model, grads);
            model = next;
            seen += rows.len();
            on_update(&SftMetrics {
                step: updater.done(),
                epoch: epoch as f64 + seen as f64 / source.len() as f64,
                loss,
                lr,
                grad_norm,
                tokens: size.tokens,
                skipped: updater.skipped(),
                seconds: start.elapsed().as_secs_f64(),
            })?;
        }
    }
    Ok(model)
}
