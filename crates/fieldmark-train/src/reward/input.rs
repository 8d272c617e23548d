//! The interface of a reward: its input and the trait to implement.

/// Input of a reward. Make one with [`Self::new`], because fields may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RewardInput<'a> {
    /// Text of the response, without special tokens, up to the end token.
    pub response: &'a str,
    /// The right answer.
    pub truth: &'a str,
    /// Other names of the right answer, which are as right.
    pub aliases: &'a [String],
    /// Name of the sample as in error messages: file and row. Rewards can use it to look up more data about the sample.
    pub sample: &'a str,
    /// Number of tokens in the response, including the end token.
    pub response_tokens: usize,
    /// Largest number of tokens that a response may have.
    pub max_new_tokens: usize,
}

impl<'a> RewardInput<'a> {
    /// Makes an input from a response and the right answer, without aliases, without a name and with lengths of 0.
    pub fn new(response: &'a str, truth: &'a str) -> Self {
        Self { response, truth, aliases: &[], sample: "", response_tokens: 0, max_new_tokens: 0 }
    }

    /// Sets the other names of the right answer.
    #[must_use]
    pub fn with_aliases(self, aliases: &'a [String]) -> Self {
        Self { aliases, ..self }
    }

    /// The right answer and its other names.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        std::iter::once(self.truth).chain(self.aliases.iter().map(String::as_str))
    }

    /// Sets the name of the sample.
    #[must_use]
    pub fn with_sample(self, sample: &'a str) -> Self {
        Self { sample, ..self }
    }

    /// Sets the length of the response and the largest length allowed, both in tokens.
    #[must_use]
    pub fn with_tokens(self, response_tokens: usize, max_new_tokens: usize) -> Self {
        Self { response_tokens, max_new_tokens, ..self }
    }
}

/// Scores a response. Every closure `Fn(&RewardInput) -> f64` is a reward.
pub trait Reward: Send + Sync {
    /// Returns the score, usually in 0..=1. A score that is not finite ends the run with an error.
    fn score(&self, input: &RewardInput<'_>) -> f64;
}

impl<F: Fn(&RewardInput<'_>) -> f64 + Send + Sync> Reward for F {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        self(input)
    }
}
