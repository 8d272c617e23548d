//! What a reward is: a function of a response and its sample to a number.

/// What a reward may look at. More may come to it: make one with [`Self::new`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RewardInput<'a> {
    /// The response, decoded without special tokens up to its end token.
    pub response: &'a str,
    /// The right answer.
    pub truth: &'a str,
    /// Name of the sample, as messages have it: file and row. For rewards that keep more about a sample elsewhere.
    pub sample: &'a str,
    /// Tokens of the response, its end token included.
    pub response_tokens: usize,
    /// Most tokens that a response may have.
    pub max_new_tokens: usize,
}

impl<'a> RewardInput<'a> {
    /// A response and the truth; no name, and lengths of 0.
    pub fn new(response: &'a str, truth: &'a str) -> Self {
        Self { response, truth, sample: "", response_tokens: 0, max_new_tokens: 0 }
    }

    /// The same with the sample's name.
    #[must_use]
    pub fn with_sample(self, sample: &'a str) -> Self {
        Self { sample, ..self }
    }

    /// The same with the length of the response and the longest allowed, both in tokens.
    #[must_use]
    pub fn with_tokens(self, response_tokens: usize, max_new_tokens: usize) -> Self {
        Self { response_tokens, max_new_tokens, ..self }
    }
}

/// Scores one response. A closure `Fn(&RewardInput) -> f64` is one.
pub trait Reward: Send + Sync {
    /// The score, usually in 0..=1. A score that is not finite ends the run.
    fn score(&self, input: &RewardInput<'_>) -> f64;
}

impl<F: Fn(&RewardInput<'_>) -> f64 + Send + Sync> Reward for F {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        self(input)
    }
}
