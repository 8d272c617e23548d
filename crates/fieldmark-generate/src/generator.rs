//! Batched, cached decoding: each prompt is prefilled once, and its cache is repeated for every response to it. The place of
//! a finished response is taken by the next one that waits.
//!
//! A response depends on its prompt, its settings and its own random stream, never on the other rows of the batch.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use burn::tensor::{Device, Tensor};
use fieldmark_model::{KvCache, Qwen25Vl};
use fieldmark_processor::Sequence;

use crate::{
    config::GenerationConfig,
    error::GenerateError,
    request::Request,
    response::{NewToken, Response},
    runner::{ModelRunner, Prefilled},
    sampler::Sampler,
    schedule::{PromptShare, Queue},
    sequence::RunningSequence,
};

/// New tokens that the cache has room for from the start.
const FIRST_ROOM: usize = 256;

/// Returns the tokens of a sequence that the cache has room for from the start, if the longest prompt has `prompt` tokens. It
/// doubles for longer responses.
pub fn cache_columns(prompt: usize, max_new_tokens: usize) -> usize {
    prompt + max_new_tokens.min(FIRST_ROOM)
}

/// The sequences that are decoded together; row i of the cache belongs to sequence i.
struct RunningBatch {
    sequences: Vec<RunningSequence>,
    cache: KvCache,
    finished: Vec<RunningSequence>,
}

impl RunningBatch {
    /// Takes finished sequences out. As in the cache, the last row takes the place of one that leaves.
    fn retire(&mut self) {
        for row in (0..self.sequences.len()).rev() {
            if self.sequences[row].is_finished() {
                self.cache.remove(row);
                self.finished.push(self.sequences.swap_remove(row));
            }
        }
    }
}

/// Prompts that were prefilled: prompt i belongs to request `requests[i]`.
struct Prompts {
    prefilled: Prefilled,
    requests: Vec<usize>,
}

/// Decodes batches with one model and one configuration; it keeps no state between calls.
#[derive(Debug, Clone)]
pub struct Generator<'a> {
    runner: ModelRunner<'a>,
    sampler: Sampler,
    config: GenerationConfig,
    stop: Option<Arc<AtomicBool>>,
}

impl<'a> Generator<'a> {
    /// Creates a generator for `model`. Neither model nor device may track gradients: for a model in training, pass
    /// `model.valid()`.
    ///
    /// # Errors
    /// Returns [`GenerateError::Setting`] if `config` is invalid or bans every token.
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
        let vocab = model.config().text.vocab_size;
        if config.banned.iter().filter(|&&id| (id as usize) < vocab).count() == vocab {
            return Err(GenerateError::Setting { key: "banned", reason: "names every token of the vocabulary".into() });
        }
        let sampler = Sampler::new(config.sampling.clone(), config.banned.clone(), vocab, device);
        Ok(Self { runner: ModelRunner { model, pad_id, device: device.clone() }, sampler, config, stop: None })
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
        let rows = self.config.max_batch.min(requests.iter().map(|request| request.streams.len()).sum());
        let longest = requests.iter().map(|request| request.prompt.ids.len()).max().unwrap_or(0);
        let cache = self.runner.cache(rows, cache_columns(longest, self.config.max_new_tokens));
        let mut batch = RunningBatch { sequences: Vec::new(), cache, finished: Vec::new() };
        let mut queue = Queue::new(requests);
        let mut kept = None;
        loop {
            while batch.sequences.len() < self.config.max_batch {
                let shares = queue.take(self.config.max_batch - batch.sequences.len());
                if shares.is_empty() {
                    break;
                }
                self.check_stop()?;
                kept = self.join(requests, &shares, kept, &queue, &mut batch, &mut on_token)?;
            }
            if batch.sequences.is_empty() {
                break;
            }
            self.check_stop()?;
            let inputs: Vec<_> = batch.sequences.iter_mut().map(RunningSequence::next_input).collect();
            let logits_bv = self.runner.decode(&inputs, &mut batch.cache);
            self.choose(logits_bv, &mut batch.sequences, requests, &mut on_token)?;
            batch.retire();
        }
        let mut results: Vec<Vec<Option<Response>>> =
            requests.iter().map(|request| vec![None; request.streams.len()]).collect();
        for sequence in batch.finished {
            let (request, response) = (sequence.request, sequence.response);
            results[request][response] = Some(sequence.into_response());
        }
        Ok(results.into_iter().map(|responses| responses.into_iter().flatten().collect()).collect())
    }

    /// Lets responses join the batch, each with its first token. `kept` is the prompt of the first share if responses to
    /// it joined earlier. Returns the prompt that more responses wait for.
    fn join(
        &self,
        requests: &[Request],
        shares: &[PromptShare],
        kept: Option<Prompts>,
        queue: &Queue,
        batch: &mut RunningBatch,
        on_token: &mut impl FnMut(NewToken<'_>),
    ) -> Result<Option<Prompts>, GenerateError> {
        let mut shares = shares;
        let mut last = None;
        if let Some(prompts) = kept {
            let (first, rest) = shares.split_at(1);
            self.start(requests, first, &prompts, batch, on_token)?;
            shares = rest;
            last = Some(prompts);
        }
        if !shares.is_empty() {
            let prompts = self.prefill(requests, shares)?;
            self.start(requests, shares, &prompts, batch, on_token)?;
            last = Some(prompts);
        }
        Ok(last.filter(|prompts| prompts.requests.last().is_some_and(|&request| queue.has_more_of(request))))
    }

    /// Starts the responses of `shares`, whose prompts are among `prompts`.
    fn start(
        &self,
        requests: &[Request],
        shares: &[PromptShare],
        prompts: &Prompts,
        batch: &mut RunningBatch,
        on_token: &mut impl FnMut(NewToken<'_>),
    ) -> Result<(), GenerateError> {
        let context = self.runner.model.config().text.max_position_embeddings;
        let mut rows = Vec::new();
        let mut sequences = Vec::new();
        for share in shares {
            let row = prompts.requests.iter().position(|&request| request == share.request).expect("it was prefilled");
            let request = &requests[share.request];
            let limit = self.config.max_new_tokens.min(context - request.prompt.ids.len());
            for response in share.responses.clone() {
                let position = prompts.prefilled.next_position[row];
                sequences.push(RunningSequence::new((share.request, request), response, position, limit));
                rows.push(row);
            }
        }
        let logits_bv = prompts.prefilled.logits_pv.clone().select(0, self.runner.index(&rows));
        self.choose(logits_bv, &mut sequences, requests, on_token)?;
        let (done, going): (Vec<_>, Vec<_>) = sequences.into_iter().zip(rows).partition(|(s, _)| s.is_finished());
        batch.finished.extend(done.into_iter().map(|(sequence, _)| sequence));
        let (sequences, rows): (Vec<_>, Vec<_>) = going.into_iter().unzip();
        if !rows.is_empty() {
            batch.cache.admit(&prompts.prefilled.cache, self.runner.index(&rows));
            batch.sequences.extend(sequences);
        }
        Ok(())
    }

    /// Prefills the prompt of each share.
    fn prefill(&self, requests: &[Request], shares: &[PromptShare]) -> Result<Prompts, GenerateError> {
        let context = self.runner.model.config().text.max_position_embeddings;
        let prompts: Vec<Sequence> = shares.iter().map(|share| requests[share.request].prompt.clone()).collect();
        for prompt in &prompts {
            if prompt.ids.len() >= context {
                return Err(GenerateError::Context { sample: prompt.name.clone(), tokens: prompt.ids.len(), context });
            }
        }
        let requests = shares.iter().map(|share| share.request).collect();
        Ok(Prompts { prefilled: self.runner.prefill(&prompts)?, requests })
    }

    /// Appends a token to each of `sequences`; row i of `logits_bv` belongs to sequence i.
    fn choose(
        &self,
        logits_bv: Tensor<2>,
        sequences: &mut [RunningSequence],
        requests: &[Request],
        on_token: &mut impl FnMut(NewToken<'_>),
    ) -> Result<(), GenerateError> {
        let vocab = logits_bv.dims()[1];
        let copy: Option<Vec<f32>> = self.config.output_logits.then(|| logits_bv.clone().into_data().iter().collect());
        let mut rows: Vec<_> = sequences.iter_mut().map(RunningSequence::row_state).collect();
        let choices = self.sampler.next(logits_bv, &mut rows);
        for (row, (sequence, choice)) in sequences.iter_mut().zip(choices).enumerate() {
            let (request, response) = (sequence.request, sequence.response);
            if !choice.logp.is_finite() {
                let sample = requests[request].prompt.name.clone();
                return Err(GenerateError::NotFinite { sample, step: sequence.len() });
            }
            sequence.append(choice, &self.config.eos_token_ids);
            let logits = copy.as_ref().map(|copy| &copy[row * vocab..(row + 1) * vocab]);
            on_token(NewToken { request, response, id: choice.token, logits, is_last: sequence.is_finished() });
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), GenerateError> {
        let stopped = self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::SeqCst));
        if stopped { Err(GenerateError::Stopped) } else { Ok(()) }
    }
}
