//! Text to token ids and back, and the ids of the special tokens.
//!
//! Reference: `Qwen2TokenizerFast` of transformers: the `tokenizers` library reads a `tokenizer.json`; encoding adds no
//! tokens. Truncation and padding settings of the file are switched off, so that nothing is ever cut.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use fieldmark_model::{ModelError, VisionTokens, reading};
use serde_json::Value;

use super::{
    special,
    tokenizer_config::TokenizerConfig,
    vocabulary::{self, MERGES, VOCABULARY},
};
use crate::error::ProcessorError;

/// What to do with special tokens when ids become text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Write their names.
    Keep,
    /// Leave them out.
    Skip,
}

/// A tokenizer that has all tokens of [`special::ALL`]. Clones share the vocabulary.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    name: Arc<str>,
    vision: VisionTokens,
    eos: u32,
    pad: u32,
    config: Arc<TokenizerConfig>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. The end and padding tokens are `<|im_end|>` and `<|endoftext|>`, unless `eos_token`
    /// and `pad_token` of `tokenizer_config.json` or `special_tokens_map.json` in the same folder say otherwise.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Io`], [`ProcessorError::Tokenizer`], [`ProcessorError::Config`] or
    /// [`ProcessorError::MissingToken`], which name the file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ProcessorError> {
        let path = path.as_ref();
        let bytes = reading::bytes(path)?;
        let config = TokenizerConfig::from_folder(path.parent().unwrap_or(Path::new("")))?;
        Self::from_bytes(&bytes, &path.display().to_string())?.configured(config)
    }

    /// Reads the tokenizer of a checkpoint folder: `tokenizer.json`, else `vocab.json` with `merges.txt`, from which
    /// transformers makes the same tokenizer. End and padding token are those of [`Self::from_file`].
    ///
    /// # Errors
    /// Returns the errors of [`Self::from_file`], and [`ProcessorError::Model`] if the folder has no tokenizer.
    pub fn from_folder(folder: &Path) -> Result<Self, ProcessorError> {
        let file = folder.join("tokenizer.json");
        let [has_vocabulary, has_merges] = [VOCABULARY, MERGES].map(|name| folder.join(name).is_file());
        if file.exists() {
            return Self::from_file(file);
        }
        if has_vocabulary && has_merges {
            let config = TokenizerConfig::from_folder(folder)?;
            let name = folder.join(VOCABULARY).display().to_string();
            return Self::new(vocabulary::read(folder, &config)?, &name)?.configured(config);
        }
        let half = match (has_vocabulary, has_merges) {
            (true, _) => format!("; {VOCABULARY} needs {MERGES} beside it"),
            (_, true) => format!("; {MERGES} needs {VOCABULARY} beside it"),
            _ => String::new(),
        };
        let problem = format!("has no tokenizer.json{half}; copy tokenizer.json from the folder of the base model");
        Err(ModelError::Refused { path: folder.into(), problem }.into())
    }

    /// Takes the end and padding tokens that the files beside the vocabulary name.
    fn configured(self, config: TokenizerConfig) -> Result<Self, ProcessorError> {
        let mut tokenizer = self;
        for (key, id) in [("eos_token", &mut tokenizer.eos), ("pad_token", &mut tokenizer.pad)] {
            if let Some(token) = config.named(key) {
                *id = require(&tokenizer.inner, &tokenizer.name, token)?;
            }
        }
        tokenizer.config = Arc::new(config);
        Ok(tokenizer)
    }

    /// Reads the content of a `tokenizer.json`; errors call the file `name`.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Tokenizer`] or [`ProcessorError::MissingToken`].
    pub fn from_bytes(bytes: &[u8], name: &str) -> Result<Self, ProcessorError> {
        let inner = tokenizers::Tokenizer::from_bytes(bytes)
            .map_err(|error| ProcessorError::Tokenizer { name: name.into(), reason: error.to_string() })?;
        Self::new(inner, name)
    }

    pub(super) fn new(mut inner: tokenizers::Tokenizer, name: &str) -> Result<Self, ProcessorError> {
        let failed = |reason: String| ProcessorError::Tokenizer { name: name.into(), reason };
        inner.with_truncation(None).map_err(|error| failed(error.to_string()))?;
        inner.with_padding(None);
        let id = |token: &str| require(&inner, name, token);
        for token in special::ALL {
            id(token)?;
        }
        let vision = VisionTokens {
            image: id(special::IMAGE_PAD)?,
            video: id(special::VIDEO_PAD)?,
            start: id(special::VISION_START)?,
            end: id(special::VISION_END)?,
        };
        let (eos, pad) = (id(special::IM_END)?, id(special::END_OF_TEXT)?);
        Ok(Self { inner: Arc::new(inner), name: name.into(), vision, eos, pad, config: Arc::default() })
    }

    /// Encodes `text`. The names of special tokens in `text` become those tokens; no token is added.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Tokenizer`] if the library refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ProcessorError> {
        let encoding = self.inner.encode_fast(text, false).map_err(|error| self.failed(error.as_ref()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Decodes `ids`. Bytes that are not UTF-8 become U+FFFD; ids outside the vocabulary are left out.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Tokenizer`] if the library refuses the ids.
    pub fn decode(&self, ids: &[u32], specials: SpecialTokens) -> Result<String, ProcessorError> {
        self.inner.decode(ids, specials == SpecialTokens::Skip).map_err(|error| self.failed(error.as_ref()))
    }

    /// The id of a token, or `None` if the vocabulary does not have it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The ids of the tokens for images and videos.
    pub fn vision_tokens(&self) -> VisionTokens {
        self.vision
    }

    /// The id of the token that ends an answer.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The id of the token that pads short rows.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Number of tokens, special tokens included. A model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The tokenizer's file, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The content of a `tokenizer.json` from which this tokenizer can be read again.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Tokenizer`] if the library cannot write it.
    pub fn to_json(&self) -> Result<String, ProcessorError> {
        self.inner.to_string(true).map_err(|error| self.failed(error.as_ref()))
    }

    /// The content of a `tokenizer_config.json` that goes with [`Self::to_json`].
    ///
    /// # Errors
    /// Returns [`ProcessorError::Tokenizer`] if the library refuses the names of the tokens.
    pub(crate) fn config_json(&self) -> Result<Value, ProcessorError> {
        let [eos, pad] = self.end_and_pad()?;
        Ok(self.config.to_json(&eos, &pad))
    }

    /// The variables that a chat template sees, such as `eos_token`.
    pub(crate) fn template_variables(&self) -> Result<BTreeMap<String, Value>, ProcessorError> {
        let [eos, pad] = self.end_and_pad()?;
        Ok(self.config.variables(&eos, &pad))
    }

    /// The value of `chat_template` in `tokenizer_config.json`, if it has one.
    pub(crate) fn template(&self) -> Option<&Value> {
        self.config.template()
    }

    fn end_and_pad(&self) -> Result<[String; 2], ProcessorError> {
        let name = |id| self.decode(&[id], SpecialTokens::Keep);
        Ok([name(self.eos)?, name(self.pad)?])
    }

    fn failed(&self, error: &(dyn std::error::Error + Send + Sync)) -> ProcessorError {
        ProcessorError::Tokenizer { name: self.name.to_string(), reason: error.to_string() }
    }
}

fn require(inner: &tokenizers::Tokenizer, name: &str, token: &str) -> Result<u32, ProcessorError> {
    inner.token_to_id(token).ok_or_else(|| ProcessorError::MissingToken { name: name.into(), token: token.into() })
}
