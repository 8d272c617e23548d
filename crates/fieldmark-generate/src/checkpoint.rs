//! What a checkpoint says about decoding: `generation_config.json`, and the end tokens of `config.json` where that file
//! names none.

use std::path::Path;

use fieldmark_model::reading;
use fieldmark_processor::{SpecialTokens, Tokenizer, special};
use serde_json::{Map, Value};

use crate::error::GenerateError;

/// What a checkpoint says about decoding.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CheckpointGeneration {
    /// The end tokens of `generation_config.json`, else those of `config.json`; a single id becomes a list of one.
    pub eos_token_ids: Vec<u32>,
    /// The repetition penalty of `generation_config.json`, `None` if it has none. Published checkpoints have 1.05, which
    /// the released evaluation applies without saying so.
    pub repetition_penalty: Option<f64>,
    /// The end tokens of `config.json`, if they are other ones than those that count.
    overruled: Vec<u32>,
    /// Token ids that the model's vocabulary does not have, each said with its file and key.
    outside: Vec<String>,
}

impl CheckpointGeneration {
    /// Reads `generation_config.json` and `config.json` in `folder`; neither need exist. If the former names no end
    /// token, those of the latter count: at its top, else in its `text_config`.
    ///
    /// # Errors
    /// Returns [`GenerateError::File`] if a file is not valid, a key has the wrong type or no end token is in the model's
    /// vocabulary, and [`GenerateError::Model`] if a file cannot be read.
    pub fn from_folder(folder: &Path) -> Result<Self, GenerateError> {
        let first = folder.join("generation_config.json");
        let settings = read(&first)?.unwrap_or_default();
        let generation = end_tokens(&first, &settings)?;
        let repetition_penalty = match settings.get("repetition_penalty") {
            None | Some(Value::Null) => None,
            Some(penalty) => {
                let penalty = penalty.as_f64();
                Some(penalty.ok_or_else(|| refuse(&first, "`repetition_penalty` must be a number"))?)
            }
        };
        let path = folder.join("config.json");
        let json = read(&path)?.unwrap_or_default();
        let mut config = end_tokens(&path, &json)?;
        let text = json.get("text_config").and_then(Value::as_object);
        if let (true, Some(text)) = (config.is_empty(), text) {
            config = end_tokens(&path, text)?;
        }
        let (eos_token_ids, overruled, from) = if generation.is_empty() {
            (config, Vec::new(), &path)
        } else {
            // Published checkpoints name one of two end tokens in config.json: no contradiction.
            let agree = config.iter().any(|id| generation.contains(id));
            (generation, if agree { Vec::new() } else { config }, &first)
        };
        let size = json.get("vocab_size").or_else(|| text?.get("vocab_size")).and_then(Value::as_u64);
        let mut outside = Vec::new();
        if let Some(size) = size {
            outside.extend(end_tokens_outside(from, &eos_token_ids, size)?);
            outside.extend([(&first, &settings), (&path, &json)].into_iter().filter_map(|(path, json)| {
                let id = json.get("pad_token_id")?.as_u64().filter(|id| *id >= size)?;
                let why = outside_of(size);
                Some(format!("{}: `pad_token_id` = {id} {why}; the tokenizer's padding token is used", path.display()))
            }));
        }
        Ok(Self { eos_token_ids, repetition_penalty, overruled, outside })
    }

    /// Returns the end tokens of the files, or the tokenizer's end token if they name none.
    pub fn end_tokens(self, tokenizer: &Tokenizer) -> Vec<u32> {
        if self.eos_token_ids.is_empty() { vec![tokenizer.eos()] } else { self.eos_token_ids }
    }

    /// Returns what a reader should know: that the files name different end tokens, none that ends a turn, or some that
    /// the model does not have.
    pub fn contradictions(&self, tokenizer: &Tokenizer) -> Vec<String> {
        let name = |id: &u32| tokenizer.decode(&[*id], SpecialTokens::Keep).unwrap_or_default();
        let names = |ids: &[u32]| ids.iter().map(|id| format!("{id} ({})", name(id))).collect::<Vec<_>>().join(", ");
        let mut notes = self.outside.clone();
        if !self.overruled.is_empty() {
            notes.push(format!(
                "the end token is {} in generation_config.json, which counts, and {} in config.json",
                names(&self.eos_token_ids),
                names(&self.overruled)
            ));
        }
        let end = tokenizer.id(special::IM_END);
        if !self.eos_token_ids.is_empty() && end.is_some_and(|end| !self.eos_token_ids.contains(&end)) {
            notes.push(format!(
                "no end token of the checkpoint is {}, which ends a turn, only {}: a reply may go on to the limit",
                special::IM_END,
                names(&self.eos_token_ids)
            ));
        }
        notes
    }
}

fn refuse(path: &Path, reason: &str) -> GenerateError {
    GenerateError::File { path: path.into(), reason: reason.into() }
}

/// Reads a JSON object; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<Map<String, Value>>, GenerateError> {
    if !path.is_file() {
        return Ok(None);
    }
    let text = reading::text(path)?;
    serde_json::from_str(&text).map(Some).map_err(|error| refuse(path, &error.to_string()))
}

/// Says which end tokens a model with a vocabulary of `size` tokens never writes.
///
/// # Errors
/// Returns an error if there is no other: each reply would go on to the limit.
fn end_tokens_outside(path: &Path, ids: &[u32], size: u64) -> Result<Option<String>, GenerateError> {
    let outside: Vec<u32> = ids.iter().copied().filter(|id| u64::from(*id) >= size).collect();
    if outside.is_empty() {
        return Ok(None);
    }
    let what = format!("`eos_token_id` = {outside:?} {}", outside_of(size));
    if outside.len() == ids.len() {
        return Err(refuse(path, &format!("{what}, so no reply would end; name the id of the token that ends a turn")));
    }
    Ok(Some(format!("{}: {what}; only the others end a reply", path.display())))
}

fn outside_of(size: u64) -> String {
    format!("is outside the model's vocabulary (`vocab_size` in config.json is {size})")
}

fn end_tokens(path: &Path, json: &Map<String, Value>) -> Result<Vec<u32>, GenerateError> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match json.get("eos_token_id") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(one) => id(one).map(|id| vec![id]),
    };
    ids.ok_or_else(|| refuse(path, "`eos_token_id` must be a token id or a list of them"))
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
    fn the_configuration_names_the_end_where_the_generation_settings_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let read = |generation: Option<&str>, config: &str| {
            let path = folder.path().join("generation_config.json");
            let _ = std::fs::remove_file(&path);
            if let Some(text) = generation {
                std::fs::write(&path, text).unwrap();
            }
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            CheckpointGeneration::from_folder(folder.path())
        };
        let nested = r#"{"text_config": {"eos_token_id": 5}}"#;
        for (generation, config, ids) in [
            (None, r#"{"eos_token_id": 7}"#, vec![7]),
            (None, r#"{"eos_token_id": [7, 8], "text_config": {"eos_token_id": 5}}"#, vec![7, 8]),
            (None, nested, vec![5]),
            (Some(r#"{"temperature": 0.1}"#), nested, vec![5]),
            (
                Some(r#"{"eos_token_id": null}"#),
                r#"{"eos_token_id": null, "text_config": {"eos_token_id": [5]}}"#,
                vec![5],
            ),
            (Some(r#"{"eos_token_id": 9}"#), nested, vec![9]),
            (None, "{}", vec![]),
        ] {
            assert_eq!(read(generation, config).unwrap().eos_token_ids, ids, "{generation:?} {config}");
        }
        let message = read(None, r#"{"eos_token_id": "x"}"#).unwrap_err().to_string();
        assert!(message.contains("config.json") && message.contains("`eos_token_id`"), "{message}");
        // One of two published end tokens is no contradiction, another one is.
        let tokenizer = fieldmark_processor::train_tokenizer(["a"], &[], 280).unwrap();
        let (end, pad) = (tokenizer.eos(), tokenizer.pad());
        let notes =
            |generation: &str, config: String| read(Some(generation), &config).unwrap().contradictions(&tokenizer);
        let both = format!(r#"{{"eos_token_id": [{end}, {pad}]}}"#);
        assert!(notes(&both, format!(r#"{{"eos_token_id": {pad}}}"#)).is_empty());
        let said = notes(&both, r#"{"eos_token_id": 9}"#.into());
        assert!(matches!(said.as_slice(), [one] if one.contains("9") && one.contains(&end.to_string())), "{said:?}");
        let said = notes(&format!(r#"{{"eos_token_id": {pad}}}"#), "{}".into());
        assert!(matches!(said.as_slice(), [one] if one.contains(special::IM_END)), "{said:?}");
    }

    #[test]
    fn ids_outside_the_vocabulary_are_named_with_file_and_key() {
        let tokenizer = fieldmark_processor::train_tokenizer(["a"], &[], 280).unwrap();
        let end = tokenizer.eos();
        let read = |generation: String, config: String| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("generation_config.json"), generation).unwrap();
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            CheckpointGeneration::from_folder(folder.path())
        };
        let notes =
            |generation: String, config: &str| read(generation, config.into()).unwrap().contradictions(&tokenizer);
        let flat = r#"{"vocab_size": 280, "pad_token_id": 279}"#;
        let nested = r#"{"text_config": {"vocab_size": 280}, "pad_token_id": 151643}"#;
        assert!(notes(format!(r#"{{"eos_token_id": {end}}}"#), flat).is_empty());
        let one_of = |notes: Vec<String>, parts: &[&str]| {
            assert!(matches!(notes.as_slice(), [one] if parts.iter().all(|part| one.contains(part))), "{notes:?}");
        };
        let both = format!(r#"{{"eos_token_id": [{end}, 280]}}"#);
        one_of(notes(both, flat), &["/generation_config.json", "`eos_token_id`", "280"]);
        one_of(notes(format!(r#"{{"eos_token_id": {end}}}"#), nested), &["/config.json", "`pad_token_id`", "151643"]);
        let pad = format!(r#"{{"eos_token_id": {end}, "pad_token_id": 280}}"#);
        one_of(notes(pad, flat), &["/generation_config.json", "`pad_token_id`", "280"]);
        for (generation, config, file) in [
            (r#"{"eos_token_id": [151645, 151643]}"#, flat, "/generation_config.json"),
            ("{}", r#"{"vocab_size": 280, "eos_token_id": 280}"#, "/config.json"),
        ] {
            let error = read(generation.into(), config.into()).unwrap_err().to_string();
            assert!(error.contains(file) && error.contains("`eos_token_id`") && error.contains("280"), "{error}");
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
