//! Text to token ids and back, and the ids of the special tokens.
//!
//! Reference: `Qwen2TokenizerFast` of transformers: the `tokenizers` library reads a `tokenizer.json`; encoding adds no
//! tokens. Truncation and padding settings of the file are switched off, so that nothing is ever cut.

use std::{path::Path, sync::Arc};

use fieldmark_model::VisionTokens;
use serde_json::Value;

use crate::error::ProcessorError;

/// Names of the tokens that Qwen2.5-VL needs, in the order of their ids in the published vocabulary.
pub mod special {
    /// Ends a document; also pads short rows.
    pub const END_OF_TEXT: &str = "<|endoftext|>";
    /// Opens a turn.
    pub const IM_START: &str = "<|im_start|>";
    /// Ends a turn.
    pub const IM_END: &str = "<|im_end|>";
    /// Before an image or a video.
    pub const VISION_START: &str = "<|vision_start|>";
    /// After an image or a video.
    pub const VISION_END: &str = "<|vision_end|>";
    /// Reserved.
    pub const VISION_PAD: &str = "<|vision_pad|>";
    /// Stands for one token of an image.
    pub const IMAGE_PAD: &str = "<|image_pad|>";
    /// Stands for one token of a video.
    pub const VIDEO_PAD: &str = "<|video_pad|>";
    /// All special tokens.
    pub const ALL: [&str; 8] =
        [END_OF_TEXT, IM_START, IM_END, VISION_START, VISION_END, VISION_PAD, IMAGE_PAD, VIDEO_PAD];
}

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
}

impl Tokenizer {
    /// Reads a `tokenizer.json`. The end and padding tokens are `<|im_end|>` and `<|endoftext|>`, unless `eos_token`
    /// and `pad_token` of a `tokenizer_config.json` in the same folder say otherwise.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Io`], [`ProcessorError::Tokenizer`], [`ProcessorError::Config`] or
    /// [`ProcessorError::MissingToken`], which name the file.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ProcessorError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(ProcessorError::io(path))?;
        let mut tokenizer = Self::from_bytes(&bytes, &path.display().to_string())?;
        let config = path.with_file_name("tokenizer_config.json");
        if config.exists() {
            let text = std::fs::read_to_string(&config).map_err(ProcessorError::io(&config))?;
            let config: Value = serde_json::from_str(&text).map_err(|error| ProcessorError::Config {
                path: config,
                key: "tokenizer_config.json".into(),
                reason: format!("is not valid: {error}"),
            })?;
            for (key, id) in [("eos_token", &mut tokenizer.eos), ("pad_token", &mut tokenizer.pad)] {
                // The value is the token's name, or an object that contains the name.
                let token = config.get(key).and_then(|value| value.as_str().or_else(|| value.get("content")?.as_str()));
                if let Some(token) = token {
                    *id = require(&tokenizer.inner, &tokenizer.name, token)?;
                }
            }
        }
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
        Ok(Self { inner: Arc::new(inner), name: name.into(), vision, eos, pad })
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

    fn failed(&self, error: &(dyn std::error::Error + Send + Sync)) -> ProcessorError {
        ProcessorError::Tokenizer { name: self.name.to_string(), reason: error.to_string() }
    }
}

fn require(inner: &tokenizers::Tokenizer, name: &str, token: &str) -> Result<u32, ProcessorError> {
    inner.token_to_id(token).ok_or_else(|| ProcessorError::MissingToken { name: name.into(), token: token.into() })
}
