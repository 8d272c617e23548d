//! The state of one response while it is decoded: its tokens, its position, its random stream and why it ended.

use std::{collections::BTreeSet, ops::Range};

use fieldmark_model::RopePosition;
use fieldmark_stream::RandomStream;

use crate::{
    config::GenerationConfig,
    request::Request,
    response::{FinishReason, Response},
};

/// What the model reads to continue a sequence by one token.
pub(crate) struct DecodeInput {
    /// The newest token.
    pub(crate) token: u32,
    /// Its rope position.
    pub(crate) position: RopePosition,
    /// The span of real tokens in the batch row, including the newest one; the rest is padding.
    pub(crate) span: Range<usize>,
}

/// A response while it grows.
#[derive(Debug)]
pub(crate) struct RunningSequence {
    /// Index of the request.
    pub(crate) request: usize,
    /// Index of the response within its request.
    pub(crate) response: usize,
    stream: RandomStream,
    /// Tokens of the prompt and of the response, for the repetition penalty.
    seen: BTreeSet<u32>,
    /// Rope position of the next token.
    position: RopePosition,
    /// The span of real tokens in the batch row.
    span: Range<usize>,
    /// The most new tokens that length limit and context allow.
    limit: usize,
    ids: Vec<u32>,
    logps: Vec<f64>,
    finish: Option<FinishReason>,
}

impl RunningSequence {
    /// Starts response number `response` of `request`, which is number `index` of the call. `position` and `span`
    /// belong to the end of the prompt in its batch row.
    pub(crate) fn new(
        (index, request): (usize, &Request),
        response: usize,
        position: RopePosition,
        span: Range<usize>,
        limit: usize,
    ) -> Self {
        Self {
            request: index,
            response,
            stream: request.streams[response].clone(),
            seen: request.prompt.ids.iter().copied().collect(),
            position,
            span,
            limit,
            ids: Vec::new(),
            logps: Vec::new(),
            finish: None,
        }
    }

    /// Returns the number of new tokens.
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Chooses the next token from `logits`, `[vocab]`, and appends it.
    pub(crate) fn append(&mut self, logits: &[f32], config: &GenerationConfig) -> u32 {
        let (id, logp) = config.sampling.next(logits, &self.seen, &config.banned, &mut self.stream);
        self.seen.insert(id);
        self.ids.push(id);
        self.logps.push(logp);
        if config.eos_token_ids.contains(&id) {
            self.finish = Some(FinishReason::Stop);
        } else if self.ids.len() == self.limit {
            self.finish = Some(FinishReason::Length);
        }
        id
    }

    /// Returns the input of the next decoding step and advances by it; a sequence without tokens feeds `pad_id`.
    pub(crate) fn next_input(&mut self, pad_id: u32) -> DecodeInput {
        let position = self.position;
        self.position += 1;
        self.span.end += 1;
        DecodeInput { token: self.ids.last().copied().unwrap_or(pad_id), position, span: self.span.clone() }
    }

    pub(crate) fn into_response(self) -> Response {
        Response { ids: self.ids, logps: self.logps, finish: self.finish.unwrap_or(FinishReason::Length) }
    }
}
