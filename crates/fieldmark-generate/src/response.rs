//! What a [`crate::Generator`] returns: finished responses, and single tokens while they are decoded.

use serde::{Deserialize, Serialize};

/// Why a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model chose an end token.
    Stop,
    /// The response reached `max_new_tokens` or the end of the model's context.
    Length,
}

/// One response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// The new tokens, including the end token.
    pub ids: Vec<u32>,
    /// The log-probability of each token at the sampling temperature (1 for greedy), without top-k, top-p, penalty and
    /// bans.
    pub logps: Vec<f64>,
    /// Why the response ended.
    pub finish: FinishReason,
}

impl Response {
    /// Returns the tokens without the end token.
    pub fn text_ids(&self) -> &[u32] {
        match self.finish {
            FinishReason::Stop => &self.ids[..self.ids.len().saturating_sub(1)],
            FinishReason::Length => &self.ids,
        }
    }
}

/// One new token, as [`crate::Generator::generate_with`] reports it.
#[derive(Debug, Clone, Copy)]
pub struct NewToken<'a> {
    /// Index of the request.
    pub request: usize,
    /// Index of the response within its request.
    pub response: usize,
    /// The token.
    pub id: u32,
    /// The raw logits that the token was chosen from, `[vocab]`, if
    /// [`output_logits`](crate::GenerationConfig::output_logits) asks for them.
    pub logits: Option<&'a [f32]>,
    /// Whether the response ends with this token.
    pub is_last: bool,
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
