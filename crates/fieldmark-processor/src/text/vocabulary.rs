//! A tokenizer from the files of older checkpoints: `vocab.json` and `merges.txt`, with the added tokens of
//! `tokenizer_config.json` (`added_tokens_decoder`), else of `added_tokens.json`.
//!
//! Reference: `Qwen2Tokenizer` and `Qwen2Converter` of transformers.

use std::{collections::BTreeMap, path::Path};

use fieldmark_model::{ModelError, reading};
use serde_json::{Map, Value};
use tokenizers::{
    AddedToken,
    models::bpe::{BPE, Vocab},
};

use super::{qwen2::around, tokenizer_config::TokenizerConfig};
use crate::error::ProcessorError;

pub(super) const VOCABULARY: &str = "vocab.json";
pub(super) const MERGES: &str = "merges.txt";
const ADDED: &str = "added_tokens.json";

/// Reads the files in `folder`.
pub(super) fn read(folder: &Path, config: &TokenizerConfig) -> Result<tokenizers::Tokenizer, ProcessorError> {
    let path = folder.join(VOCABULARY);
    let name = path.display().to_string();
    let failed = |error: tokenizers::Error| ProcessorError::Tokenizer { name: name.clone(), reason: error.to_string() };
    let vocabulary: Vocab = ids(&path, &object(&path)?)?.into_iter().map(|(id, token)| (token, id)).collect();
    let size = vocabulary.len();
    let bpe = BPE::builder().vocab_and_merges(vocabulary, merges(folder)?);
    let mut inner = around(bpe.build().map_err(failed)?).map_err(failed)?;
    for (id, token) in added(folder, config)? {
        let content = token.content.clone();
        inner.add_tokens([token]).map_err(failed)?;
        if inner.token_to_id(&content) != Some(id) {
            let reason = format!(
                "the added token `{content}` has the id {id}, but the next free id behind the {size} tokens of this file \
                 and those before it is another; use the files of one checkpoint"
            );
            return Err(ProcessorError::Tokenizer { name, reason });
        }
    }
    Ok(inner)
}

fn object(path: &Path) -> Result<Map<String, Value>, ProcessorError> {
    match reading::json(path, "vocabulary")? {
        Value::Object(map) => Ok(map),
        _ => Err(damaged(path, "is not a JSON object".into())),
    }
}

fn damaged(path: &Path, reason: String) -> ProcessorError {
    ModelError::Json { path: path.into(), what: "vocabulary", reason }.into()
}

/// The tokens of a mapping from token to id, by id.
fn ids(path: &Path, map: &Map<String, Value>) -> Result<BTreeMap<u32, String>, ProcessorError> {
    let mut found = BTreeMap::new();
    for (token, value) in map {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| damaged(path, format!("the id of `{token}` is {value}")))?;
        if let Some(other) = found.insert(id, token.clone()) {
            return Err(damaged(path, format!("`{other}` and `{token}` have the same id {id}")));
        }
    }
    Ok(found)
}

/// The pairs of `merges.txt`, after its line with the version.
fn merges(folder: &Path) -> Result<Vec<(String, String)>, ProcessorError> {
    let path = folder.join(MERGES);
    let text = reading::text(&path)?;
    let lines =
        text.lines().enumerate().filter(|(at, line)| !(line.is_empty() || *at == 0 && line.starts_with("#version")));
    let pair = |(at, line): (usize, &str)| {
        let refuse = || damaged(&path, format!("line {} is not two tokens with a blank between them", at + 1));
        let (one, other) = line.split_once(' ').filter(|(_, other)| !other.contains(' ')).ok_or_else(refuse)?;
        Ok((one.to_owned(), other.to_owned()))
    };
    lines.map(pair).collect()
}

/// The added tokens by id.
fn added(folder: &Path, config: &TokenizerConfig) -> Result<BTreeMap<u32, AddedToken>, ProcessorError> {
    if let Some(map) = config.added_tokens() {
        let path = folder.join("tokenizer_config.json");
        let entry = |(id, value): (&String, &Value)| {
            let refuse = |reason: String| ProcessorError::Config {
                path: path.clone(),
                key: "added_tokens_decoder".into(),
                reason: format!("{reason} for the id {id}"),
            };
            let number = id.parse().map_err(|_| refuse("has no whole number".into()))?;
            let token =
                serde_json::from_value(value.clone()).map_err(|error| refuse(format!("has no token: {error}")))?;
            Ok((number, token))
        };
        return map.iter().map(entry).collect();
    }
    let path = folder.join(ADDED);
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    // As in the published tokenizer, none is looked for in normalised text.
    let token = |(id, content): (u32, String)| {
        let special = config.is_special(&content);
        (id, AddedToken::from(content, special).normalized(false))
    };
    Ok(ids(&path, &object(&path)?)?.into_iter().map(token).collect())
}
