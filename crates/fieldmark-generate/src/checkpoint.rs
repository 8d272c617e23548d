//! What the `generation_config.json` of a checkpoint says about decoding.

use std::path::Path;

use fieldmark_processor::Tokenizer;
use serde_json::{Map, Value};

use crate::error::GenerateError;

/// The keys of `generation_config.json` that decoding uses.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckpointGeneration {
    /// The end tokens; a single id in the file becomes a list of one.
    pub eos_token_ids: Vec<u32>,
    /// The repetition penalty, `None` if the file has none. Published checkpoints have 1.05, which the released
    /// evaluation applies without saying so.
    pub repetition_penalty: Option<f64>,
}

impl CheckpointGeneration {
    /// Reads `generation_config.json` in `folder`; returns the default if the folder has none.
    ///
    /// # Errors
    /// Returns [`GenerateError::File`] if the file exists but is unreadable or a key has the wrong type.
    pub fn from_folder(folder: &Path) -> Result<Self, GenerateError> {
        let path = folder.join("generation_config.json");
        if !path.is_file() {
            return Ok(Self::default());
        }
        let refuse = |reason: String| GenerateError::File { path: path.clone(), reason };
        let text = std::fs::read_to_string(&path).map_err(|error| refuse(error.to_string()))?;
        let json: Map<String, Value> = serde_json::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let eos_token_ids = match json.get("eos_token_id") {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(id).collect(),
            Some(one) => id(one).map(|id| vec![id]),
        };
        let repetition_penalty = match json.get("repetition_penalty") {
            None | Some(Value::Null) => Some(None),
            Some(penalty) => penalty.as_f64().map(Some),
        };
        Ok(Self {
            eos_token_ids: eos_token_ids
                .ok_or_else(|| refuse("`eos_token_id` must be a token id or a list of them".into()))?,
            repetition_penalty: repetition_penalty
                .ok_or_else(|| refuse("`repetition_penalty` must be a number".into()))?,
        })
    }

    /// Returns the end tokens of the file, or the tokenizer's end token if the file has none.
    pub fn end_tokens(self, tokenizer: &Tokenizer) -> Vec<u32> {
        if self.eos_token_ids.is_empty() { vec![tokenizer.eos()] } else { self.eos_token_ids }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read from a folder whose `generation_config.json` holds `json`.
    fn read(json: &str) -> Result<CheckpointGeneration, GenerateError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("generation_config.json"), json).unwrap();
        CheckpointGeneration::from_folder(folder.path())
    }

    #[test]
    fn end_tokens_may_be_a_list_or_one_or_absent() {
        for (json, ids) in [
            (r#"{"eos_token_id": [151645, 151643]}"#, vec![151645, 151643]),
            (r#"{"eos_token_id": 7}"#, vec![7]),
            (r#"{"eos_token_id": 0}"#, vec![0]),
            (r#"{"eos_token_id": []}"#, vec![]),
            (r#"{"eos_token_id": null}"#, vec![]),
            (r#"{"do_sample": true}"#, vec![]),
        ] {
            assert_eq!(read(json).unwrap().eos_token_ids, ids, "{json}");
        }
    }

    #[test]
    fn ill_typed_end_tokens_are_refused_with_file_and_key() {
        for json in [
            r#"{"eos_token_id": "<|im_end|>"}"#,
            r#"{"eos_token_id": -1}"#,
            r#"{"eos_token_id": 1.5}"#,
            r#"{"eos_token_id": 4294967296}"#,
            r#"{"eos_token_id": [2, "67"]}"#,
            r#"{"eos_token_id": [[2]]}"#,
            r#"{"eos_token_id": {}}"#,
        ] {
            let message = read(json).unwrap_err().to_string();
            assert!(message.contains("generation_config.json") && message.contains("`eos_token_id`"), "{message}");
        }
    }

    #[test]
    fn text_that_is_no_json_object_is_refused_with_the_file() {
        for json in ["", "{\"eos_token_id\": [2,", "[2]"] {
            let message = read(json).unwrap_err().to_string();
            assert!(message.contains("generation_config.json") && message.contains("line 1"), "{message}");
        }
    }

    #[test]
    fn the_penalty_is_none_where_the_file_has_none() {
        assert_eq!(read(r#"{"repetition_penalty": 1.05}"#).unwrap().repetition_penalty, Some(1.05));
        assert_eq!(read(r#"{"eos_token_id": 2}"#).unwrap().repetition_penalty, None);
        let message = read(r#"{"repetition_penalty": "1.05"}"#).unwrap_err().to_string();
        assert!(message.contains("generation_config.json") && message.contains("`repetition_penalty`"), "{message}");
    }

    #[test]
    fn a_folder_without_the_file_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(CheckpointGeneration::from_folder(folder.path()).unwrap(), CheckpointGeneration::default());
    }
}
