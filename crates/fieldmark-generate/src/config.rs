//! Settings of one generation.

use crate::{error::GenerateError, sampler::Sampling};

/// Everything that decides what is generated, the random streams excepted.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Most new tokens of one response, the end token counted.
    pub max_new_tokens: usize,
    /// Any of these ends a response.
    pub eos_token_ids: Vec<u32>,
    /// Never chosen, besides the vision tokens.
    pub banned: Vec<u32>,
    /// Lets the vision tokens be chosen, as the reference does: only for comparisons with it. A sampled image token makes
    /// a sequence that no batch accepts.
    pub allow_vision_tokens: bool,
    /// Most sequences decoded side by side.
    pub max_batch: usize,
}

impl GenerationConfig {
    /// The greedy setting with nothing banned yet.
    pub fn greedy(max_new_tokens: usize, eos_token_ids: Vec<u32>) -> Self {
        Self {
            sampling: Sampling::greedy(),
            max_new_tokens,
            eos_token_ids,
            banned: Vec::new(),
            allow_vision_tokens: false,
            max_batch: 32,
        }
    }

    /// Checks that every value has a meaning.
    ///
    /// # Errors
    /// [`GenerateError::Setting`] names the first that has none.
    pub fn validate(&self) -> Result<(), GenerateError> {
        for (key, value) in [("max_new_tokens", self.max_new_tokens), ("max_batch", self.max_batch)] {
            if value == 0 {
                return Err(GenerateError::Setting { key, reason: "must be positive".into() });
            }
        }
        self.sampling.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_batches_of_nothing_are_refused() {
        let greedy = GenerationConfig::greedy(4, vec![2]);
        assert!(greedy.validate().is_ok());
        for (config, wanted) in [
            (GenerationConfig { max_new_tokens: 0, ..greedy.clone() }, "max_new_tokens"),
            (GenerationConfig { max_batch: 0, ..greedy.clone() }, "max_batch"),
            (GenerationConfig { sampling: Sampling::nucleus(1.0, 1.5), ..greedy }, "top_p"),
        ] {
            assert!(matches!(config.validate(), Err(GenerateError::Setting { key, .. }) if key == wanted));
        }
    }
}
