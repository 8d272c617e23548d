//! The state of one response while it is decoded: its tokens, its position, its random stream and why it ended.

use std::collections::BTreeSet;

use fieldmark_model::RopePosition;
use fieldmark_stream::RandomStream;

use crate::{
    request::Request,
    response::{FinishReason, Response},
    sampler::{Choice, RowState},
};

/// What the model reads to continue a sequence by one token.
pub(crate) struct DecodeInput {
    /// The newest token.
    pub(crate) token: u32,
    /// Its rope position.
    pub(crate) position: RopePosition,
    /// The number of tokens of prompt and response, including the newest one.
    pub(crate) tokens: usize,
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
    /// The number of tokens in the prompt.
    prompt: usize,
    /// The most new tokens that length limit and context allow.
    limit: usize,
    ids: Vec<u32>,
    logps: Vec<f64>,
    finish: Option<FinishReason>,
}

impl RunningSequence {
    /// Starts response number `response` of `request`, which is number `index` of the call. `position` is that of its
    /// first token.
    pub(crate) fn new(
        (index, request): (usize, &Request),
        response: usize,
        position: RopePosition,
        limit: usize,
    ) -> Self {
        Self {
            request: index,
            response,
            stream: request.streams[response].clone(),
            seen: request.prompt.ids.iter().copied().collect(),
            position,
            prompt: request.prompt.ids.len(),
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

    /// What the sampler needs to choose the next token.
    pub(crate) fn row_state(&mut self) -> RowState<'_> {
        RowState { seen: &self.seen, stream: &mut self.stream }
    }

    /// Appends a token. A token of `eos_token_ids` ends the response, as its length limit does.
    pub(crate) fn append(&mut self, Choice { token, logp }: Choice, eos_token_ids: &[u32]) {
        self.seen.insert(token);
        self.ids.push(token);
        self.logps.push(logp);
        if eos_token_ids.contains(&token) {
            self.finish = Some(FinishReason::Stop);
        } else if self.ids.len() == self.limit {
            self.finish = Some(FinishReason::Length);
        }
    }

    /// Returns the input of the next decoding step and advances by it.
    pub(crate) fn next_input(&mut self) -> DecodeInput {
        let position = self.position;
        self.position += 1;
        let token = self.ids.last().copied().expect("a sequence joins the batch with its first token");
        DecodeInput { token, position, tokens: self.prompt + self.ids.len() }
    }

    pub(crate) fn into_response(self) -> Response {
        Response { ids: self.ids, logps: self.logps, finish: self.finish.unwrap_or(FinishReason::Length) }
    }
}
