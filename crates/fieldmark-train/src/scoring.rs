//! Log-probabilities of the tokens in the loss for one micro-batch, and the way back from their gradients.
//!
//! The trunk runs once on the tape; the head meets only the states that predict a token in the loss, chunk by chunk
//! ([`ChunkedLogProbs`]), so no `[batch, sequence, vocabulary]` tensor exists. SFT and TAPO differ only in the gradient
//! that they put on the log-probabilities.

use burn::{
    optim::{GradientsAccumulator, GradientsParams},
    tensor::{Device, Int, Tensor},
};
use fieldmark_model::{Padding, Qwen25Vl};
use fieldmark_processor::{Sequence, SupervisedSequence, collate};

use crate::{BatchSize, ChunkedLogProbs, TokenPacking, TokenScores, TrainError, backward_states};

/// Sequences with the tokens in the loss marked.
#[derive(Debug, Clone)]
pub struct MicroBatch {
    sequences: Vec<Sequence>,
    packing: TokenPacking,
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
        Ok(Self { packing: TokenPacking::new(&ids, &masks)?, sequences })
    }

    /// Tokens in the loss, and sequences.
    pub fn size(&self) -> BatchSize {
        self.packing.size()
    }

    /// Where the tokens in the loss are.
    pub fn packing(&self) -> &TokenPacking {
        &self.packing
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
}

/// Scores micro-batches with a model and brings gradients back.
#[derive(Debug, Clone, Copy)]
pub struct Scorer {
    logprobs: ChunkedLogProbs,
    pad_id: u32,
}

impl Scorer {
    /// A scorer whose head takes `chunk` states at a time and divides logits by `temperature`.
    ///
    /// # Errors
    /// A chunk of 0 or a temperature that is not positive.
    pub fn new(chunk: usize, temperature: f64, pad_id: u32) -> Result<Self, TrainError> {
        Ok(Self { logprobs: ChunkedLogProbs::new(chunk, temperature)?, pad_id })
    }

    /// Log-probabilities of the tokens in the loss. With `model` on an autodiff device the trunk's tape is kept for
    /// [`Self::backward`].
    ///
    /// # Errors
    /// If the sequences do not fit the model; the sample is named.
    pub fn forward(&self, model: &Qwen25Vl, micro: &MicroBatch, device: &Device) -> Result<Scored, TrainError> {
        let (states_nd, targets_n) = self.states(model, micro, device)?;
        let logp_n = self.logprobs.forward(&states_nd, &targets_n, |states| model.logits(states));
        Ok(Scored { logp_n, states_nd, targets_n })
    }

    /// Log-probabilities and the entropies of the distributions they come from; nothing is kept.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn evaluate(&self, model: &Qwen25Vl, micro: &MicroBatch, device: &Device) -> Result<TokenScores, TrainError> {
        let (states_nd, targets_n) = self.states(model, micro, device)?;
        Ok(self.logprobs.forward_with_entropy(&states_nd, &targets_n, |states| model.logits(states)))
    }

    fn states(
        &self,
        model: &Qwen25Vl,
        micro: &MicroBatch,
        device: &Device,
    ) -> Result<(Tensor<2>, Tensor<1, Int>), TrainError> {
        let inputs = collate(&micro.sequences, Padding::Right, self.pad_id, None, model.config(), device)?;
        let hidden_btd = model.forward(&inputs);
        Ok((micro.packing.gather(hidden_btd), micro.packing.targets(device)))
    }

    /// Gradients of `sum(logp · grad_logp)`; `grad_logp` is a constant, `[N]`.
    pub fn backward(&self, model: &Qwen25Vl, scored: Scored, grad_logp_n: Tensor<1>) -> GradientsParams {
        let Scored { states_nd, targets_n, .. } = scored;
        let head = self.logprobs.backward(&states_nd, &targets_n, grad_logp_n, model, |states| model.logits(states));
        // With everything before the head frozen there is no tape to go back on.
        if !states_nd.is_tracked() {
            return head.params;
        }
        let mut grads = backward_states(states_nd, head.hidden_nd);
        let mut total = GradientsAccumulator::new();
        total.accumulate(model, head.params);
        total.accumulate(model, GradientsParams::from_module(&mut grads, model));
        total.grads()
    }
}
