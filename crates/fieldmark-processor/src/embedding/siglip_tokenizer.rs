//! Encodes texts for a SigLIP text tower: lower case, no punctuation, cut or padded to one length.
//!
//! Reference: `SiglipTokenizer` of transformers (Unigram), called with `padding="max_length", truncation=True`, but
//! from `tokenizer.json` instead of `spiece.model`; and `Siglip2Tokenizer` (BPE), which only lowers the case.

use std::{fmt, path::Path};

use fieldmark_model::reading;
use serde_json::Value;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizedString, Normalizer, NormalizerWrapper, PaddingDirection,
    PaddingParams, PaddingStrategy, PostProcessorWrapper, TokenizerImpl, TruncationParams,
    normalizers::{Lowercase, Precompiled, Sequence},
    pre_tokenizers::metaspace::{Metaspace, PrependScheme},
};

use crate::error::ProcessorError;

/// The mark that sentencepiece writes for a space.
const UNDERLINE: char = '\u{2581}';

/// The command that makes `tokenizer.json` from `spiece.model`.
const CONVERT: &str = "python -c \"from transformers import SiglipTokenizer; from transformers.convert_slow_tokenizer \
                       import SpmConverter; SpmConverter(SiglipTokenizer.from_pretrained('DIR')).converted()\
                       .save('DIR/tokenizer.json')\"";

/// The tokenizer of a SigLIP checkpoint.
pub struct SiglipTokenizer {
    kind: Kind,
    name: String,
    length: usize,
    pad: u32,
}

enum Kind {
    /// SigLIP. The steps before and after sentencepiece are the reference's; those in the file are ignored.
    Unigram(Box<TokenizerImpl<ModelWrapper, Canonical, Metaspace, PostProcessorWrapper, DecoderWrapper>>, u32),
    /// SigLIP 2. All steps are as the file says, after lowering the case.
    Bpe(Box<tokenizers::Tokenizer>),
}

impl SiglipTokenizer {
    /// Reads `tokenizer.json` of a checkpoint folder, and from `tokenizer_config.json`, if there is one, `eos_token`,
    /// `pad_token`, `unk_token` and `padding_side`. Every text is encoded to `length` ids.
    ///
    /// # Errors
    /// Returns an error that names the file that is missing or damaged, or the token that the vocabulary lacks.
    pub fn from_dir(folder: &Path, length: usize) -> Result<Self, ProcessorError> {
        let path = folder.join("tokenizer.json");
        if !path.is_file() && folder.join("spiece.model").is_file() {
            let reason = format!("the file is missing; make it from spiece.model with transformers: {CONVERT}");
            return Err(ProcessorError::Tokenizer { name: path.display().to_string(), reason });
        }
        let bytes = reading::bytes(&path)?;
        let path_config = folder.join("tokenizer_config.json");
        let config = if path_config.is_file() {
            let text = reading::text(&path_config)?;
            serde_json::from_str(&text).map_err(|error| ProcessorError::Config {
                path: path_config,
                key: "tokenizer_config.json".into(),
                reason: format!("is not valid: {error}"),
            })?
        } else {
            Value::Null
        };
        Self::new(&bytes, &config, path.display().to_string(), length)
    }

    fn new(bytes: &[u8], config: &Value, name: String, length: usize) -> Result<Self, ProcessorError> {
        let failed =
            |error: tokenizers::Error| ProcessorError::Tokenizer { name: name.clone(), reason: error.to_string() };
        let file = tokenizers::Tokenizer::from_bytes(bytes).map_err(failed)?;
        let id = |token: &str| {
            let missing = || ProcessorError::MissingToken { name: name.clone(), token: token.into() };
            file.token_to_id(token).ok_or_else(missing)
        };
        // The value is the token's name, or an object that contains the name.
        let token = |key: &str, or: &str| {
            let value = config.get(key).and_then(|value| value.as_str().or_else(|| value.get("content")?.as_str()));
            value.unwrap_or(or).to_owned()
        };
        let (kind, pad) = match file.get_model() {
            ModelWrapper::Unigram(_) => {
                let [eos, pad, unk] = [("eos_token", "</s>"), ("pad_token", "</s>"), ("unk_token", "<unk>")]
                    .map(|(key, or)| token(key, or));
                let ids = (id(&eos)?, id(&pad)?);
                id(&unk)?;
                let mut inner = TokenizerImpl::new(file.get_model().clone());
                let canonical = Canonical { map: file.get_normalizer().and_then(character_map) };
                inner.with_normalizer(Some(canonical)).map_err(failed)?;
                inner.with_pre_tokenizer(Some(Metaspace::new(UNDERLINE, PrependScheme::Never, true)));
                // The reference recognises no other token by its name in a text.
                let special = [eos, pad, unk].map(|token| AddedToken::from(token, true));
                inner.add_special_tokens(special).map_err(failed)?;
                (Kind::Unigram(Box::new(inner), ids.0), ids.1)
            }
            ModelWrapper::BPE(_) => {
                let pad_token = token("pad_token", "<pad>");
                let pad_id = id(&pad_token)?;
                let left = config.get("padding_side").and_then(Value::as_str) == Some("left");
                let direction = if left { PaddingDirection::Left } else { PaddingDirection::Right };
                let mut inner = file.clone();
                let own = file.get_normalizer().cloned();
                let all = [Some(NormalizerWrapper::Lowercase(Lowercase)), own].into_iter().flatten().collect();
                let normalizer = NormalizerWrapper::Sequence(Sequence::new(all));
                inner.with_normalizer(Some(normalizer)).map_err(failed)?;
                let truncation = TruncationParams { max_length: length, ..TruncationParams::default() };
                inner.with_truncation(Some(truncation)).map_err(failed)?;
                let strategy = PaddingStrategy::Fixed(length);
                let padding = PaddingParams { strategy, direction, pad_id, pad_token, ..PaddingParams::default() };
                inner.with_padding(Some(padding));
                (Kind::Bpe(Box::new(inner)), pad_id)
            }
            _ => {
                let reason = "the model is neither Unigram nor BPE; name a SigLIP checkpoint folder".into();
                return Err(ProcessorError::Tokenizer { name, reason });
            }
        };
        Ok(Self { kind, name, length, pad })
    }

    /// Encodes `text` to a fixed number of ids: longer texts are cut, shorter ones padded with [`Self::pad`].
    ///
    /// # Errors
    /// Returns [`ProcessorError::Tokenizer`] if the library refuses the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ProcessorError> {
        let failed =
            |error: tokenizers::Error| ProcessorError::Tokenizer { name: self.name.clone(), reason: error.to_string() };
        match &self.kind {
            Kind::Unigram(inner, eos) => {
                let text = format!("{UNDERLINE}{}", text.replace(UNDERLINE, " "));
                let mut ids = inner.encode_fast(text, false).map_err(failed)?.get_ids().to_vec();
                ids.truncate(self.length - 1);
                if ids.last() != Some(eos) {
                    ids.push(*eos);
                }
                ids.resize(self.length, self.pad);
                Ok(ids)
            }
            Kind::Bpe(inner) => Ok(inner.encode_fast(text, true).map_err(failed)?.get_ids().to_vec()),
        }
    }

    /// The id that pads short texts.
    pub fn pad(&self) -> u32 {
        self.pad
    }

    /// Number of tokens, special tokens included. The tower's embedding must have at least as many rows.
    pub fn vocab_size(&self) -> usize {
        match &self.kind {
            Kind::Unigram(inner, _) => inner.get_vocab_size(true),
            Kind::Bpe(inner) => inner.get_vocab_size(true),
        }
    }

    /// The tokenizer's file, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for SiglipTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiglipTokenizer")
            .field("name", &self.name)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Finds sentencepiece's character map in the file's normaliser. The other parts differ between files; [`Canonical`]
/// replaces them.
fn character_map(normalizer: &NormalizerWrapper) -> Option<Precompiled> {
    match normalizer {
        NormalizerWrapper::Precompiled(map) => Some(map.clone()),
        NormalizerWrapper::Sequence(parts) => parts.as_ref().iter().find_map(character_map),
        _ => None,
    }
}

/// `SiglipTokenizer.canonicalize_text` of transformers, then sentencepiece's own steps: the character map, and one
/// blank for each run of blanks.
struct Canonical {
    map: Option<Precompiled>,
}

impl Normalizer for Canonical {
    fn normalize(&self, normalized: &mut NormalizedString) -> tokenizers::Result<()> {
        let mut text = NormalizedString::from(canonicalize(normalized.get()));
        if let Some(map) = &self.map {
            map.normalize(&mut text)?;
        }
        let mut spaced = String::with_capacity(text.get().len());
        spaced.extend(
            text.get()
                .chars()
                .scan(false, |after_space, c| {
                    let repeated = std::mem::replace(after_space, c == ' ') && c == ' ';
                    Some(if repeated { None } else { Some(c) })
                })
                .flatten(),
        );
        // Offsets into the original text are not needed.
        *normalized = NormalizedString::from(spaced.trim_end_matches([' ', UNDERLINE]));
        Ok(())
    }
}

/// Lower case, no ASCII punctuation, one space for each run of Python's white space, none at the ends.
fn canonicalize(text: &str) -> String {
    let is_space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    let plain: String = text.to_lowercase().chars().filter(|c| !c.is_ascii_punctuation()).collect();
    plain.split(is_space).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}
