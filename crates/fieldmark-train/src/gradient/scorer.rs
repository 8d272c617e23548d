//! Log-probabilities of the tokens in the loss of one micro-batch, and the backward pass from their gradients.
//!
//! The trunk runs once, with one tape per block ([`TrunkTape`]). The head runs in chunks, only on the states that
//! predict a token in the loss ([`ChunkedLogProbs`]), so no `[batch, sequence, vocabulary]` tensor exists. SFT and TAPO
//! differ only in the gradient that they put on the log-probabilities.

use std::collections::HashSet;

use burn::tensor::{Device, Int, Tensor};
use fieldmark_model::{AdapterSizes, Flops, ModelInputs, Padding, Qwen25Vl, Qwen25VlConfig};
use fieldmark_processor::{Sequence, SupervisedSequence, collate, pack};

use super::{
    contrast::TokenContrast,
    logprob::{ChunkedLogProbs, TokenScores},
    loss_norm::BatchSize,
    packing::TokenPacking,
    pass_flops::pass_flops,
    passes::Passes,
    shared_prompts::SharedRow,
    sum::GradientSum,
    trunk::{TrunkSettings, TrunkTape},
};
use crate::TrainError;

/// Sequences that are computed together, with the tokens in the loss marked.
#[derive(Debug, Clone)]
pub struct MicroBatch {
    /// What the network reads: the samples, or the segments of a packed row.
    sequences: Vec<Sequence>,
    packing: TokenPacking,
    /// For a packed row, the segment that each segment continues.
    after: Option<Vec<Option<usize>>>,
}

impl MicroBatch {
    /// Makes a micro-batch of `samples`, padded on the right with `pad_id`.
    ///
    /// # Errors
    /// Returns an error if no token is in the loss, or a mask and its sequence differ in length.
    pub fn new(samples: Vec<SupervisedSequence>, pad_id: u32) -> Result<Self, TrainError> {
        let width = samples.iter().map(|sample| sample.sequence.ids.len()).max().unwrap_or(0);
        let (mut ids, mut masks, mut sequences) = (Vec::new(), Vec::new(), Vec::new());
        for SupervisedSequence { sequence, mut target_mask } in samples {
            let mut row = sequence.ids.clone();
            row.resize(width, pad_id);
            target_mask.resize(width.max(target_mask.len()), false);
            ids.push(row);
            masks.push(target_mask);
            sequences.push(sequence);
        }
        Ok(Self { packing: TokenPacking::new(&ids, &masks)?, sequences, after: None })
    }

    /// Makes a micro-batch without padding: `samples` are placed one after another in a single row, each attending only
    /// to itself. Samples that are responses to the same prompt share it: the prompt is in the row once.
    ///
    /// # Errors
    /// Returns the errors of [`Self::new`].
    pub fn packed(samples: Vec<SupervisedSequence>) -> Result<Self, TrainError> {
        let row = SharedRow::new(&samples);
        let (ids, masks): (Vec<_>, Vec<_>) =
            samples.into_iter().map(|sample| (sample.sequence.ids, sample.target_mask)).unzip();
        let packing = TokenPacking::packed(&ids, &masks, |sample, token| row.place(sample, token))?;
        Ok(Self { packing, sequences: row.segments, after: Some(row.after) })
    }

    /// Number of tokens in the loss and of sequences.
    pub fn size(&self) -> BatchSize {
        self.packing.size()
    }

    /// Positions of the tokens in the loss.
    pub fn packing(&self) -> &TokenPacking {
        &self.packing
    }

    /// Number of operations of a forward pass over this micro-batch, in a network with `adapters`.
    pub fn flops(&self, config: &Qwen25VlConfig, adapters: AdapterSizes) -> Flops {
        let parts = self.sequences.iter().enumerate().map(|(i, sequence)| {
            let before = self.continued(i).map_or(0, |before| self.sequences[before].ids.len());
            (sequence, before)
        });
        pass_flops(config, adapters, parts, self.size().tokens)
    }

    /// Names of the samples, for error messages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let shared: HashSet<usize> = (0..self.sequences.len()).filter_map(|i| self.continued(i)).collect();
        let samples = self.sequences.iter().enumerate().filter(move |(i, _)| !shared.contains(i));
        samples.map(|(_, sequence)| sequence.name.as_str())
    }

    /// The segment that segment `i` continues.
    fn continued(&self, i: usize) -> Option<usize> {
        self.after.as_ref().and_then(|after| after[i])
    }
}

/// Log-probabilities of one micro-batch, with the data for the backward pass.
pub struct Scored {
    /// Log-probability of each token in the loss, `[N]`. A constant.
    pub logp_n: Tensor<1>,
    states_nd: Tensor<2>,
    targets_n: Tensor<1, Int>,
    tape: Option<(TrunkTape, TokenPacking, [usize; 2])>,
}

/// Computes the log-probabilities of micro-batches under a model, and the gradients of the model's parameters.
#[derive(Debug, Clone, Copy)]
pub struct Scorer {
    logprobs: ChunkedLogProbs,
    pad_id: u32,
    trunk: TrunkSettings,
    packing: bool,
}

impl Scorer {
    /// Makes a scorer that computes the logits of `chunk` states at a time and divides them by `temperature`. It keeps
    /// the tapes of all blocks, unless [`Self::with_trunk`] says otherwise.
    ///
    /// # Errors
    /// Returns an error if `chunk` is 0 or `temperature` is not positive.
    pub fn new(chunk: usize, temperature: f64, pad_id: u32) -> Result<Self, TrainError> {
        let logprobs = ChunkedLogProbs::new(chunk, temperature)?;
        Ok(Self { logprobs, pad_id, trunk: TrunkSettings::default(), packing: false })
    }

    /// Makes a scorer with the settings of `passes`.
    ///
    /// # Errors
    /// Returns an error if `passes.logit_chunk` is 0 or `temperature` is not positive.
    pub fn for_passes(passes: &Passes, temperature: f64, pad_id: u32) -> Result<Self, TrainError> {
        let scorer = Self::new(passes.logit_chunk, temperature, pad_id)?;
        Ok(scorer.with_trunk(passes.trunk()).with_packing(passes.packing))
    }

    /// Sets the trade of memory for time.
    #[must_use]
    pub fn with_trunk(self, trunk: TrunkSettings) -> Self {
        Self { trunk, ..self }
    }

    /// Sets whether [`Self::micro_batch`] packs its samples instead of padding them.
    #[must_use]
    pub fn with_packing(self, packing: bool) -> Self {
        Self { packing, ..self }
    }

    /// Makes a micro-batch of `samples`, padded or packed.
    ///
    /// # Errors
    /// Returns the errors of [`MicroBatch::new`].
    pub fn micro_batch(&self, samples: Vec<SupervisedSequence>) -> Result<MicroBatch, TrainError> {
        if self.packing { MicroBatch::packed(samples) } else { MicroBatch::new(samples, self.pad_id) }
    }

    /// Computes the log-probabilities of the tokens in the loss. If `model` and `device` are on autodiff, the result
    /// also keeps what [`Self::backward`] needs.
    ///
    /// # Errors
    /// Returns an error that names the sample if a sequence does not fit the model.
    pub fn forward(&self, model: &Qwen25Vl, micro: &MicroBatch, device: &Device) -> Result<Scored, TrainError> {
        let inputs = self.inputs(model, micro, device)?;
        let dims = inputs.dims();
        let (hidden_btd, tape) = if device.is_autodiff() {
            let (hidden_btd, tape) = TrunkTape::forward(model, inputs, self.trunk);
            (hidden_btd, Some((tape, micro.packing.clone(), dims)))
        } else {
            (model.forward(&inputs), None)
        };
        let (states_nd, targets_n) = (micro.packing.gather(hidden_btd), micro.packing.targets(device));
        let logp_n = self.logprobs.forward(&states_nd, &targets_n, |states| model.logits(states));
        Ok(Scored { logp_n, states_nd, targets_n, tape })
    }

    /// Computes log-probabilities and the entropies of the distributions. Nothing is kept for a backward pass.
    ///
    /// # Errors
    /// Returns the errors of [`Self::forward`].
    pub fn evaluate(&self, model: &Qwen25Vl, micro: &MicroBatch, device: &Device) -> Result<TokenScores, TrainError> {
        let states_nd = micro.packing.gather(model.forward(&self.inputs(model, micro, device)?));
        let targets_n = micro.packing.targets(device);
        Ok(self.logprobs.forward_with_entropy(&states_nd, &targets_n, |states| model.logits(states)))
    }

    /// Compares, token by token, the distributions in the first half of the samples with those in the second: the same
    /// responses, with other images. Nothing is kept for a backward pass.
    ///
    /// # Errors
    /// Returns the errors of [`Self::forward`].
    pub fn contrast(
        &self,
        model: &Qwen25Vl,
        micro: &MicroBatch,
        device: &Device,
    ) -> Result<Vec<TokenContrast>, TrainError> {
        let states_nd = micro.packing.gather(model.forward(&self.inputs(model, micro, device)?));
        let tokens = states_nd.dims()[0] / 2;
        let [seen_nd, other_nd] = [0, tokens].map(|from| states_nd.clone().narrow(0, from, tokens));
        Ok(self.logprobs.contrast(&seen_nd, &other_nd, |states| model.logits(states)))
    }

    fn inputs(&self, model: &Qwen25Vl, micro: &MicroBatch, device: &Device) -> Result<ModelInputs, TrainError> {
        let MicroBatch { sequences, after, .. } = micro;
        Ok(match after {
            None => collate(sequences, Padding::Right, self.pad_id, None, model.config(), device)?,
            Some(after) => pack(sequences, after, model.config(), device)?,
        })
    }

    /// Adds the gradients of `sum(logp · grad_logp)` to `sum`. `grad_logp_n` is a constant, `[N]`. If `scored` was made
    /// without a tape, nothing is added.
    pub fn backward(&self, model: &Qwen25Vl, scored: Scored, grad_logp_n: Tensor<1>, sum: &mut GradientSum) {
        let Scored { states_nd, targets_n, tape, .. } = scored;
        let Some((tape, packing, dims)) = tape else { return };
        let head = self.logprobs.backward(&states_nd, &targets_n, grad_logp_n, model, |states| model.logits(states));
        drop(states_nd);
        tape.backward(model, packing.scatter(head.hidden_nd, dims), head.params, sum);
    }
}
