//! `tokenizer_config.json`, and `special_tokens_map.json` of older tools: the named special tokens, and a chat template.
//!
//! Reference: `PreTrainedTokenizerBase.from_pretrained` of transformers. A token is its text, or an object with it.

use std::{collections::BTreeMap, path::Path};

use fieldmark_model::reading;
use serde_json::{Map, Value, json};

use super::special;
use crate::error::ProcessorError;

const FILE: &str = "tokenizer_config.json";

/// The keys that are written again when a tokenizer is saved, besides those of named tokens.
const KEPT: [&str; 7] = [
    "additional_special_tokens",
    "clean_up_tokenization_spaces",
    "model_input_names",
    "model_max_length",
    "padding_side",
    "split_special_tokens",
    "truncation_side",
];

/// What a checkpoint says about its tokenizer besides the vocabulary.
#[derive(Debug, Clone, Default)]
pub(crate) struct TokenizerConfig {
    json: Map<String, Value>,
    /// The special tokens that the files name, such as `eos_token`.
    named: BTreeMap<String, String>,
    /// The special tokens that the reference's class has by itself.
    of_class: BTreeMap<String, String>,
    /// The additional special tokens of both files.
    listed: Vec<String>,
}

impl TokenizerConfig {
    /// Reads the files in `folder`; neither need exist.
    pub(crate) fn from_folder(folder: &Path) -> Result<Self, ProcessorError> {
        let read = |name: &str| -> Result<Option<Map<String, Value>>, ProcessorError> {
            let path = folder.join(name);
            if !path.exists() {
                return Ok(None);
            }
            let refuse = |reason: String| ProcessorError::Config { path: path.clone(), key: name.to_owned(), reason };
            let json: Value = serde_json::from_str(&reading::text(&path)?)
                .map_err(|error| refuse(format!("is not valid: {error}")))?;
            match json {
                Value::Object(map) => Ok(Some(map)),
                _ => Err(refuse("is not a JSON object".into())),
            }
        };
        let found = read(FILE)?;
        let mut of_class = BTreeMap::new();
        let class = found.as_ref().map(|json| json.get("tokenizer_class").and_then(Value::as_str));
        // The reference takes its class for Qwen also where none is named; it has these three tokens by itself.
        if let Some(None | Some("Qwen2Tokenizer" | "Qwen2TokenizerFast")) = class {
            of_class =
                ["eos_token", "pad_token", "unk_token"].map(|key| (key.into(), special::END_OF_TEXT.into())).into();
        }
        let json = found.unwrap_or_default();
        let (mut named, mut listed) = (BTreeMap::new(), additional_tokens(&json));
        add_tokens(&mut named, &json);
        for key in ["extra_special_tokens", "model_specific_special_tokens"] {
            if let Some(map) = json.get(key).and_then(Value::as_object) {
                add_tokens(&mut named, map);
            }
        }
        // The older file counts only beside a configuration that does not list the added tokens itself.
        if !json.contains_key("added_tokens_decoder")
            && let Some(map) = read("special_tokens_map.json")?
        {
            add_tokens(&mut named, &map);
            listed.extend(additional_tokens(&map));
        }
        Ok(Self { json, named, of_class, listed })
    }

    /// The text of a token that the files name, such as `eos_token`; `None` if they do not.
    pub(super) fn named(&self, key: &str) -> Option<&str> {
        self.named.get(key).map(String::as_str)
    }

    /// The variables that a chat template sees: the special tokens by name, and the list of the additional ones. Where no
    /// file names any, they are those of a tokenizer with these end and padding tokens.
    pub(super) fn variables(&self, eos: &str, pad: &str) -> BTreeMap<String, Value> {
        let mut variables = BTreeMap::new();
        if self.json.is_empty() && self.named.is_empty() {
            variables.insert("eos_token".into(), json!(eos));
            variables.insert("pad_token".into(), json!(pad));
        }
        let tokens = self.of_class.iter().chain(&self.named);
        variables.extend(tokens.map(|(key, text)| (key.clone(), json!(text))));
        if let Some(list) = self.additional() {
            variables.insert("additional_special_tokens".into(), list);
        }
        variables
    }

    /// The tokens that the file adds to the vocabulary, by id.
    pub(super) fn added_tokens(&self) -> Option<&Map<String, Value>> {
        self.json.get("added_tokens_decoder").and_then(Value::as_object)
    }

    /// Whether the files name a token, alone or in a list of special tokens.
    pub(super) fn is_special(&self, token: &str) -> bool {
        let tokens = self.named.values().chain(self.of_class.values());
        tokens.chain(&self.listed).any(|special| special == token)
    }

    /// The value of `chat_template`.
    pub(crate) fn template(&self) -> Option<&Value> {
        self.json.get("chat_template")
    }

    /// What to write as `tokenizer_config.json`, for a tokenizer with these end and padding tokens. Both transformers 4
    /// and 5 read it: the class is the one that takes `tokenizer.json` as it is.
    pub(super) fn to_json(&self, eos: &str, pad: &str) -> Value {
        let mut json = Map::new();
        json.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        json.insert("processor_class".into(), json!("Qwen2_5_VLProcessor"));
        json.insert("add_bos_token".into(), json!(false));
        json.insert("clean_up_tokenization_spaces".into(), json!(false));
        for key in KEPT {
            if let Some(value) = self.json.get(key).filter(|value| !value.is_null()) {
                json.insert(key.into(), value.clone());
            }
        }
        json.extend(self.variables(eos, pad));
        for (key, text) in [("eos_token", eos), ("pad_token", pad)] {
            json.entry(key).or_insert_with(|| json!(text));
        }
        json.into()
    }

    /// The additional special tokens. Newer tools write the list under another name, which older ones do not read.
    fn additional(&self) -> Option<Value> {
        additional_list(&self.json).map(|list| list.iter().filter_map(token_text).collect())
    }
}

fn additional_list(json: &Map<String, Value>) -> Option<&Vec<Value>> {
    ["additional_special_tokens", "extra_special_tokens"].iter().find_map(|key| json.get(*key)?.as_array())
}

fn additional_tokens(json: &Map<String, Value>) -> Vec<String> {
    additional_list(json).into_iter().flatten().filter_map(token_text).map(str::to_owned).collect()
}

fn add_tokens(tokens: &mut BTreeMap<String, String>, from: &Map<String, Value>) {
    for (key, value) in from.iter().filter(|(key, _)| key.ends_with("_token")) {
        if let Some(text) = token_text(value) {
            tokens.insert(key.clone(), text.into());
        }
    }
}

fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}
