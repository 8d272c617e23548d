//! Settings of one generation, and what a checkpoint's `generation_config.json` says about them.

use std::path::Path;

use serde_json::Value;

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

/// What `generation_config.json` of a checkpoint holds that matters here.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckpointGeneration {
    /// End tokens; a single id in the file is a list of one.
    pub eos_token_ids: Vec<u32>,
    /// The published 1.05, which the released evaluation applied without saying so; `None` where the file has none.
    pub repetition_penalty: Option<f64>,
}

impl CheckpointGeneration {
    /// Reads `generation_config.json` in `folder`; a folder without one gives the default.
    ///
    /// # Errors
    /// [`GenerateError::File`] if it is there and cannot be read.
    pub fn from_folder(folder: &Path) -> Result<Self, GenerateError> {
        let path = folder.join("generation_config.json");
        if !path.is_file() {
            return Ok(Self::default());
        }
        let refuse = |reason: String| GenerateError::File { path: path.clone(), reason };
        let text = std::fs::read_to_string(&path).map_err(|error| refuse(error.to_string()))?;
        let json: Value = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let eos_token_ids = match json.get("eos_token_id") {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(id).collect(),
            Some(one) => id(one).map(|id| vec![id]),
        };
        Ok(Self {
            eos_token_ids: eos_token_ids
                .ok_or_else(|| refuse("`eos_token_id` must be a token id or a list of them".into()))?,
            repetition_penalty: json.get("repetition_penalty").and_then(Value::as_f64),
        })
    }
}
