//! Settings of one generation.

use crate::{error::GenerateError, sampler::Sampling};

/// All settings that decide what is generated, except the random streams.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// How each token is chosen.
    pub sampling: Sampling,
    /// The maximum number of new tokens per response, including the end token.
    pub max_new_tokens: usize,
    /// Tokens that end a response.
    pub eos_token_ids: Vec<u32>,
    /// Tokens that are never chosen, in addition to the vision tokens.
    pub banned: Vec<u32>,
    /// Allows the vision tokens, as the reference does. Use it only to compare with the reference: a sequence with a
    /// sampled image token cannot be batched.
    pub allow_vision_tokens: bool,
    /// The maximum number of sequences decoded together.
    pub max_batch: usize,
    /// Copies the logits of every token from the device, for [`NewToken::logits`](crate::NewToken::logits).
    pub output_logits: bool,
}

impl GenerationConfig {
    /// Returns a greedy configuration that bans nothing but the vision tokens and decodes 32 sequences together.
    pub fn greedy(max_new_tokens: usize, eos_token_ids: Vec<u32>) -> Self {
        Self {
            sampling: Sampling::greedy(),
            max_new_tokens,
            eos_token_ids,
            banned: Vec::new(),
            allow_vision_tokens: false,
            max_batch: 32,
            output_logits: false,
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// Returns [`GenerateError::Setting`] for the first invalid value.
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
