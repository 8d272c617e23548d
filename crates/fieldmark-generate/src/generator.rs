//! Batched, cached decoding: each prompt is prefilled once, and its cache is repeated for every response to it.
//!
//! A response depends on its prompt, its settings and its own random stream, never on the other rows of the batch.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use burn::tensor::Device;
use fieldmark_model::{KvCache, Qwen25Vl};
use fieldmark_processor::Sequence;

use crate::{
    config::GenerationConfig,
    error::GenerateError,
    request::Request,
    response::{NewToken, Response},
    runner::ModelRunner,
    schedule::{PromptShare, prefill_batches, rows_to_keep},
    sequence::{DecodeInput, RunningSequence},
};

/// The sequences that are decoded together; row i of cache and logits belongs to sequence i.
struct RunningBatch {
    sequences: Vec<RunningSequence>,
    cache: KvCache,
    logits: Vec<Vec<f32>>,
}

/// Decodes batches with one model and one configuration; it keeps no state between calls.
#[derive(Debug, Clone)]
pub struct Generator<'a> {
    runner: ModelRunner<'a>,
    config: GenerationConfig,
    stop: Option<Arc<AtomicBool>>,
}

impl<'a> Generator<'a> {
    /// Creates a generator for `model`. Neither model nor device may track gradients: for a model in training, pass
    /// `model.valid()`.
    ///
    /// # Errors
    /// Returns [`GenerateError::Setting`] if `config` is invalid.
    pub fn new(
        model: &'a Qwen25Vl,
        mut config: GenerationConfig,
        pad_id: u32,
        device: &Device,
    ) -> Result<Self, GenerateError> {
        config.validate()?;
        if !config.allow_vision_tokens {
            config.banned.extend(model.config().vision_tokens.all());
        }
        config.banned.sort_unstable();
        config.banned.dedup();
        Ok(Self { runner: ModelRunner { model, pad_id, device: device.clone() }, config, stop: None })
    }

    /// Sets a flag that ends decoding early: once it is set, no further batch and no further token is decoded.
    #[must_use]
    pub fn with_stop(self, stop: Arc<AtomicBool>) -> Self {
        Self { stop: Some(stop), ..self }
    }

    /// Returns all responses to all requests, in the order of the requests and of their streams.
    ///
    /// # Errors
    /// Returns an error that names the sample if a prompt does not fit the model or its context, or if logits are not
    /// finite. Returns [`GenerateError::Stopped`] if the flag of [`Self::with_stop`] is set before the end.
    pub fn generate(&self, requests: &[Request]) -> Result<Vec<Vec<Response>>, GenerateError> {
        self.generate_with(requests, |_| ())
    }

    /// Like [`Self::generate`], and calls `on_token` with every new token.
    ///
    /// # Errors
    /// Returns the errors of [`Self::generate`].
    pub fn generate_with(
        &self,
        requests: &[Request],
        mut on_token: impl FnMut(NewToken<'_>),
    ) -> Result<Vec<Vec<Response>>, GenerateError> {
        let mut results: Vec<Vec<Option<Response>>> =
            requests.iter().map(|request| vec![None; request.streams.len()]).collect();
        for batch in prefill_batches(requests, self.config.max_batch) {
            self.check_stop()?;
            for sequence in self.decode_batch(requests, &batch, &mut on_token)? {
                let (request, response) = (sequence.request, sequence.response);
                results[request][response] = Some(sequence.into_response());
            }
        }
        Ok(results.into_iter().map(|responses| responses.into_iter().flatten().collect()).collect())
    }

    /// Decodes one batch until every sequence in it is finished.
    fn decode_batch(
        &self,
        requests: &[Request],
        shares: &[PromptShare],
        on_token: &mut impl FnMut(NewToken<'_>),
    ) -> Result<Vec<RunningSequence>, GenerateError> {
        let RunningBatch { sequences: mut running, mut cache, mut logits } = self.prefill(requests, shares)?;
        let mut finished = Vec::new();
        loop {
            for (sequence, logits) in running.iter_mut().zip(&logits).filter(|(sequence, _)| !sequence.is_finished()) {
                self.append(sequence, logits, requests, on_token)?;
            }
            if let Some(keep) = rows_to_keep(&running) {
                let before = running.len();
                let (gone, stay): (Vec<_>, Vec<_>) = running.into_iter().partition(RunningSequence::is_finished);
                finished.extend(gone);
                if stay.is_empty() {
                    return Ok(finished);
                }
                self.runner.select(&mut cache, &keep, before);
                running = stay;
            }
            self.check_stop()?;
            let pad_id = self.runner.pad_id;
            let inputs: Vec<DecodeInput> = running.iter_mut().map(|sequence| sequence.next_input(pad_id)).collect();
            logits = self.runner.decode(&inputs, &mut cache);
        }
    }

    fn check_stop(&self) -> Result<(), GenerateError> {
        let stopped = self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::SeqCst));
        if stopped { Err(GenerateError::Stopped) } else { Ok(()) }
    }

    /// Prefills each prompt of a batch once and starts the responses to it.
    fn prefill(&self, requests: &[Request], shares: &[PromptShare]) -> Result<RunningBatch, GenerateError> {
        let context = self.runner.model.config().text.max_position_embeddings;
        let prompts: Vec<Sequence> = shares.iter().map(|share| requests[share.request].prompt.clone()).collect();
        for prompt in &prompts {
            if prompt.ids.len() >= context {
                return Err(GenerateError::Context { sample: prompt.name.clone(), tokens: prompt.ids.len(), context });
            }
        }
        let mut prefilled = self.runner.prefill(&prompts)?;
        let mut sequences = Vec::new();
        let mut rows = Vec::new();
        for (row, share) in shares.iter().enumerate() {
            let request = &requests[share.request];
            let limit = self.config.max_new_tokens.min(context - request.prompt.ids.len());
            for response in share.responses.clone() {
                let (position, span) = (prefilled.next_position[row], prefilled.spans[row].clone());
                sequences.push(RunningSequence::new((share.request, request), response, position, span, limit));
                rows.push(row);
            }
        }
        let logits = rows.iter().map(|&row| prefilled.logits[row].clone()).collect();
        self.runner.select(&mut prefilled.cache, &rows, shares.len());
        Ok(RunningBatch { sequences, cache: prefilled.cache, logits })
    }

    /// Appends one token to one sequence.
    fn append(
        &self,
        sequence: &mut RunningSequence,
        logits: &[f32],
        requests: &[Request],
        on_token: &mut impl FnMut(NewToken<'_>),
    ) -> Result<(), GenerateError> {
        let (request, response) = (sequence.request, sequence.response);
        if !logits.iter().all(|x| x.is_finite()) {
            let sample = requests[request].prompt.name.clone();
            return Err(GenerateError::NotFinite { sample, step: sequence.len() });
        }
        let id = sequence.append(logits, &self.config);
        on_token(NewToken { request, response, id, logits, is_last: sequence.is_finished() });
        Ok(())
    }
}
