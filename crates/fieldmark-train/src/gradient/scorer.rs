//! Log-probabilities of the tokens in the loss for one micro-batch, and the way back from their gradients.
//!
//! The trunk runs once, with a tape a block ([`TrunkTape`]); the head meets only the states that predict a token in the
//! loss, chunk by chunk ([`ChunkedLogProbs`]), so no `[batch, sequence, vocabulary]` tensor exists. SFT and TAPO differ only
//! in the gradient that they put on the log-probabilities.

use burn::tensor::{Device, Int, Tensor};
use fieldmark_model::{AdapterSizes, Flops, ModelInputs, Padding, Qwen25Vl, Qwen25VlConfig};
use fieldmark_processor::{Sequence, SupervisedSequence, collate};

use super::{
    logprob::{ChunkedLogProbs, TokenScores},
    loss_norm::BatchSize,
    packing::TokenPacking,
    pass_flops::pass_flops,
    sum::GradientSum,
    trunk::{TrunkSettings, TrunkTape},
};
use crate::TrainError;

/// Sequences with the tokens in the loss marked.
#[derive(Debug, Clone)]
pub struct MicroBatch {
    sequences: Vec<Sequence>,
    packing: TokenPacking,
    padding: Padding,
}

impl MicroBatch {
    /// A micro-batch of `samples`, padded on the right with `pad_id`.
    ///
    /// # Errors
    /// If no token is in the loss, or a mask does not fit its sequence.
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
        Ok(Self { packing: TokenPacking::new(&ids, &masks)?, sequences, padding: Padding::Right })
    }

    /// A micro-batch of `samples` one after another in a single row, each attending to itself alone: no padding.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn packed(samples: Vec<SupervisedSequence>) -> Result<Self, TrainError> {
        let (sequences, masks): (Vec<_>, Vec<_>) =
            samples.into_iter().map(|sample| (sample.sequence, sample.target_mask)).unzip();
        let ids: Vec<Vec<u32>> = sequences.iter().map(|sequence| sequence.ids.clone()).collect();
        Ok(Self { packing: TokenPacking::packed(&ids, &masks)?, sequences, padding: Padding::Packed })
    }

    /// Tokens in the loss, and sequences.
    pub fn size(&self) -> BatchSize {
        self.packing.size()
    }

    /// Where the tokens in the loss are.
    pub fn packing(&self) -> &TokenPacking {
        &self.packing
    }

    /// Operations of a forward pass over it, in a network with `adapters`.
    pub fn flops(&self, config: &Qwen25VlConfig, adapters: AdapterSizes) -> Flops {
        pass_flops(config, adapters, &self.sequences, self.size().tokens)
    }

    /// Names of the samples, for messages.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sequences.iter().map(|sequence| sequence.name.as_str())
    }
}

/// Log-probabilities of one micro-batch, with what the backward pass needs.
pub struct Scored {
    /// Log-probability of each token in the loss, `[N]`, a constant.
    pub logp_n: Tensor<1>,
    states_nd: Tensor<2>,
    targets_n: Tensor<1, Int>,
    tape: Option<(TrunkTape, TokenPacking, [usize; 2])>,
}

/// Scores micro-batches with a model and brings gradients back.
#[derive(Debug, Clone, Copy)]
pub struct Scorer {
    logprobs: ChunkedLogProbs,
    pad_id: u32,
    trunk: TrunkSettings,
    packing: bool,
}

impl Scorer {
    /// A scorer whose head takes `chunk` states at a time and divides logits by `temperature`. It keeps every block's
    /// tapes; see [`Self::with_trunk`].
    ///
    /// # Errors
    /// A chunk of 0 or a temperature that is not positive.
    pub fn new(chunk: usize, temperature: f64, pad_id: u32) -> Result<Self, TrainError> {
        let logprobs = ChunkedLogProbs::new(chunk, temperature)?;
        Ok(Self { logprobs, pad_id, trunk: TrunkSettings::default(), packing: false })
    }

    /// The same with another trade of memory for time.
    #[must_use]
    pub fn with_trunk(self, trunk: TrunkSettings) -> Self {
        Self { trunk, ..self }
    }

    /// The same with [`Self::micro_batch`] packing its samples.
    #[must_use]
    pub fn with_packing(self, packing: bool) -> Self {
        Self { packing, ..self }
    }

    /// A micro-batch of `samples`, padded or packed.
    ///
    /// # Errors
    /// As [`MicroBatch::new`].
    pub fn micro_batch(&self, samples: Vec<SupervisedSequence>) -> Result<MicroBatch, TrainError> {
        if self.packing { MicroBatch::packed(samples) } else { MicroBatch::new(samples, self.pad_id) }
    }

    /// Log-probabilities of the tokens in the loss. With `model` and `device` on autodiff, what [`Self::backward`] needs is
    /// kept.
    ///
    /// # Errors
    /// If the sequences do not fit the model; the sample is named.
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

    /// Log-probabilities and the entropies of the distributions they come from; nothing is kept.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn evaluate(&self, model: &Qwen25Vl, micro: &MicroBatch, device: &Device) -> Result<TokenScores, TrainError> {
        let states_nd = micro.packing.gather(model.forward(&self.inputs(model, micro, device)?));
        let targets_n = micro.packing.targets(device);
        Ok(self.logprobs.forward_with_entropy(&states_nd, &targets_n, |states| model.logits(states)))
    }

    fn inputs(&self, model: &Qwen25Vl, micro: &MicroBatch, device: &Device) -> Result<ModelInputs, TrainError> {
        Ok(collate(&micro.sequences, micro.padding, self.pad_id, None, model.config(), device)?)
    }

    /// Adds to `sum` the gradients of `sum(logp · grad_logp)`; `grad_logp` is a constant, `[N]`. Nothing is added for a
    /// `scored` that was made without a tape.
    pub fn backward(&self, model: &Qwen25Vl, scored: Scored, grad_logp_n: Tensor<1>, sum: &mut GradientSum) {
        let Scored { states_nd, targets_n, tape, .. } = scored;
        let Some((tape, packing, dims)) = tape else { return };
        let head = self.logprobs.backward(&states_nd, &targets_n, grad_logp_n, model, |states| model.logits(states));
        drop(states_nd);
        tape.backward(model, packing.scatter(head.hidden_nd, dims), head.params, sum);
    }
}
