//! Batched, cached decoding: prompts are read once each, their caches repeated for every response wanted.
//!
//! A response depends on its prompt, its settings and its own random stream, never on what is decoded beside it. Finished
//! responses leave the batch when half of it is idle.

use std::{collections::BTreeSet, ops::Range};

use burn::tensor::{Device, Int, Tensor, TensorData};
use fieldmark_model::{KvCache, Padding, Qwen25Vl, RopePosition};
use fieldmark_processor::{Sequence, collate};
use serde::{Deserialize, Serialize};

use fieldmark_stream::RandomStream;

use crate::{config::GenerationConfig, error::GenerateError};

/// A prompt and the random streams of the responses wanted from it, one each.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt with its images.
    pub prompt: Sequence,
    /// One stream a response.
    pub streams: Vec<RandomStream>,
}

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// With an end token.
    Stop,
    /// At the limit of new tokens or of the context.
    Length,
}

/// One response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// New tokens, the end token included.
    pub ids: Vec<u32>,
    /// Log-probability of each under the sampler's model and temperature.
    pub logps: Vec<f64>,
    /// Why it ended.
    pub finish: FinishReason,
}

impl Response {
    /// The tokens without the end token.
    pub fn text_ids(&self) -> &[u32] {
        match self.finish {
            FinishReason::Stop => &self.ids[..self.ids.len().saturating_sub(1)],
            FinishReason::Length => &self.ids,
        }
    }
}

/// One new token, as it appears.
#[derive(Debug, Clone, Copy)]
pub struct NewToken<'a> {
    /// Which request.
    pub request: usize,
    /// Which of its responses.
    pub response: usize,
    /// The token.
    pub id: u32,
    /// The logits it was chosen from, `[vocab]`.
    pub logits: &'a [f32],
}

/// A response while it grows.
struct Live {
    request: usize,
    response: usize,
    stream: RandomStream,
    seen: BTreeSet<u32>,
    position: RopePosition,
    row: Range<usize>,
    limit: usize,
    ids: Vec<u32>,
    logps: Vec<f64>,
    finish: Option<FinishReason>,
}

/// Decodes batches with one model; it keeps nothing between calls.
#[derive(Debug, Clone)]
pub struct Generator<'a> {
    model: &'a Qwen25Vl,
    config: GenerationConfig,
    pad_id: u32,
    device: Device,
}

impl<'a> Generator<'a> {
    /// A generator for `model`, whose device must not track gradients: pass `model.valid()` of a model in training.
    ///
    /// # Errors
    /// [`GenerateError::Setting`] for a setting without meaning.
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
        Ok(Self { model, config, pad_id, device: device.clone() })
    }

    /// All responses of all requests, in their order.
    ///
    /// # Errors
    /// If a prompt does not fit the model or its context, or logits are not finite; the sample is named.
    pub fn generate(&self, requests: &[Request]) -> Result<Vec<Vec<Response>>, GenerateError> {
        self.generate_with(requests, |_| ())
    }

    /// The same, showing every token as it appears.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn generate_with(
        &self,
        requests: &[Request],
        mut on_token: impl FnMut(NewToken<'_>),
    ) -> Result<Vec<Vec<Response>>, GenerateError> {
        let mut results: Vec<Vec<Option<Response>>> =
            requests.iter().map(|request| vec![None; request.streams.len()]).collect();
        for wave in self.waves(requests) {
            for done in self.run(requests, &wave, &mut on_token)? {
                let response =
                    Response { ids: done.ids, logps: done.logps, finish: done.finish.unwrap_or(FinishReason::Length) };
                results[done.request][done.response] = Some(response);
            }
        }
        Ok(results.into_iter().map(|responses| responses.into_iter().flatten().collect()).collect())
    }

    /// Splits the responses wanted into batches of at most `max_batch`, (request, first response, number).
    fn waves(&self, requests: &[Request]) -> Vec<Vec<(usize, usize, usize)>> {
        let mut waves = Vec::new();
        let mut wave = Vec::new();
        let mut room = self.config.max_batch;
        for (i, request) in requests.iter().enumerate() {
            let mut first = 0;
            while first < request.streams.len() {
                let take = room.min(request.streams.len() - first);
                wave.push((i, first, take));
                first += take;
                room -= take;
                if room == 0 {
                    waves.push(std::mem::take(&mut wave));
                    room = self.config.max_batch;
                }
            }
        }
        if !wave.is_empty() {
            waves.push(wave);
        }
        waves
    }

    fn run(
        &self,
        requests: &[Request],
        wave: &[(usize, usize, usize)],
        on_token: &mut impl FnMut(NewToken<'_>),
    ) -> Result<Vec<Live>, GenerateError> {
        let context = self.model.config().text.max_position_embeddings;
        let prompts: Vec<Sequence> = wave.iter().map(|&(i, ..)| requests[i].prompt.clone()).collect();
        for prompt in &prompts {
            if prompt.ids.len() >= context {
                return Err(GenerateError::Context { sample: prompt.name.clone(), tokens: prompt.ids.len(), context });
            }
        }
        let inputs = collate(&prompts, Padding::Left, self.pad_id, None, self.model.config(), &self.device)?;
        let [batch, seq] = inputs.dims();
        let layers = self.model.config().text.num_hidden_layers;
        let mut cache = KvCache::new(layers, 0);
        let hidden = self.model.prefill(&inputs, &mut cache);
        let width = hidden.dims()[2];
        let last = hidden.narrow(1, seq - 1, 1).reshape([batch, width]);
        let mut logits = to_rows(self.model.logits(last));

        let mut live = Vec::new();
        let mut rows = Vec::new();
        for (b, &(request, first, count)) in wave.iter().enumerate() {
            let prompt = &requests[request].prompt;
            for response in first..first + count {
                rows.push(b);
                live.push(Live {
                    request,
                    response,
                    stream: requests[request].streams[response].clone(),
                    seen: prompt.ids.iter().copied().collect(),
                    position: inputs.next_position[b],
                    row: inputs.rows[b].clone(),
                    limit: self.config.max_new_tokens.min(context - prompt.ids.len()),
                    ids: Vec::new(),
                    logps: Vec::new(),
                    finish: None,
                });
            }
        }
        // The prompt's last logits serve every response to it.
        logits = rows.iter().map(|&b| logits[b].clone()).collect();
        self.repeat(&mut cache, &rows, batch);

        let mut done = Vec::new();
        loop {
            for (one, logits) in live.iter_mut().zip(&logits).filter(|(one, _)| one.finish.is_none()) {
                self.extend(one, logits, requests, on_token)?;
            }
            let open = live.iter().filter(|one| one.finish.is_none()).count();
            if open == 0 {
                done.append(&mut live);
                return Ok(done);
            }
            if 2 * open <= live.len() {
                let keep: Vec<usize> = (0..live.len()).filter(|&i| live[i].finish.is_none()).collect();
                self.repeat(&mut cache, &keep, live.len());
                let (stay, gone): (Vec<Live>, Vec<Live>) = live.into_iter().partition(|one| one.finish.is_none());
                live = stay;
                done.extend(gone);
            }
            let tokens: Vec<u32> = live.iter().map(|one| one.ids.last().copied().unwrap_or(self.pad_id)).collect();
            let positions: Vec<RopePosition> = live.iter().map(|one| one.position).collect();
            live.iter_mut().for_each(|one| {
                one.position += 1;
                one.row.end += 1;
            });
            let spans: Vec<Range<usize>> = live.iter().map(|one| one.row.clone()).collect();
            let hidden = self.model.decode(&tokens, &positions, &spans, &mut cache, &self.device);
            logits = to_rows(self.model.logits(hidden.reshape([live.len(), width])));
        }
    }

    /// Chooses one token of one response.
    fn extend(
        &self,
        one: &mut Live,
        logits: &[f32],
        requests: &[Request],
        on_token: &mut impl FnMut(NewToken<'_>),
    ) -> Result<(), GenerateError> {
        if !logits.iter().all(|x| x.is_finite()) {
            return Err(GenerateError::NotFinite {
                sample: requests[one.request].prompt.name.clone(),
                step: one.ids.len(),
            });
        }
        let (id, logp) = self.config.sampling.next(logits, &one.seen, &self.config.banned, &mut one.stream);
        on_token(NewToken { request: one.request, response: one.response, id, logits });
        one.seen.insert(id);
        one.ids.push(id);
        one.logps.push(logp);
        if self.config.eos_token_ids.contains(&id) {
            one.finish = Some(FinishReason::Stop);
        } else if one.ids.len() == one.limit {
            one.finish = Some(FinishReason::Length);
        }
        Ok(())
    }

    /// Makes row i of the cache what row `rows[i]` was; nothing moves where that changes nothing.
    fn repeat(&self, cache: &mut KvCache, rows: &[usize], before: usize) {
        if rows.len() == before && rows.iter().enumerate().all(|(i, &row)| i == row) {
            return;
        }
        let index: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len()]), &self.device);
        cache.select(index);
    }
}

fn to_rows(logits_BV: Tensor<2>) -> Vec<Vec<f32>> {
    let vocab = logits_BV.dims()[1];
    let values: Vec<f32> = logits_BV.into_data().iter::<f32>().collect();
    values.chunks(vocab).map(<[f32]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_leaves_out_the_end_token_where_there_is_one() {
        let text = |finish, ids: &[u32]| Response { ids: ids.to_vec(), logps: Vec::new(), finish }.text_ids().to_vec();
        assert_eq!(text(FinishReason::Stop, &[7, 8, 2]), [7, 8]);
        assert_eq!(text(FinishReason::Length, &[7, 8, 2]), [7, 8, 2]);
        assert!(text(FinishReason::Stop, &[2]).is_empty() && text(FinishReason::Stop, &[]).is_empty());
    }
}
