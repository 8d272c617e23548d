//! Trains a small tokenizer on a corpus. It is built like Qwen2.5's: NFC, the same splitting rule, byte-level BPE.
//!
//! Reference: the `tokenizer.json` published with Qwen2.5. Only the vocabulary is new; the special tokens come last, as
//! in the reference.

use tokenizers::{
    AddedToken,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainerBuilder},
    },
    pre_tokenizers::byte_level::ByteLevel,
};

use super::{qwen2, special, tokenizer::Tokenizer};
use crate::error::ProcessorError;

/// Every byte is a token, so that any text can be encoded.
const BYTES: usize = 256;

/// Trains a tokenizer of at most `vocab_size` tokens, special tokens included, on `texts`. Each text of `whole` (a
/// name, a tag) becomes one token wherever it occurs. The same texts always give the same tokenizer.
///
/// # Errors
/// Returns [`ProcessorError::Tokenizer`] if `vocab_size` has no room for 256 bytes, `whole` and the special tokens, or
/// if a text of `whole` is empty or not ASCII.
pub fn train_tokenizer<S: AsRef<str> + Send>(
    texts: impl IntoIterator<Item = S, IntoIter: Send>,
    whole: &[String],
    vocab_size: usize,
) -> Result<Tokenizer, ProcessorError> {
    let name = "new tokenizer";
    let failed = |reason: String| ProcessorError::Tokenizer { name: name.into(), reason };
    let added = special::ALL.len() + whole.len();
    let least = BYTES + added;
    if vocab_size < least {
        return Err(failed(format!("a vocabulary of {vocab_size} tokens is too small; ask for at least {least}")));
    }
    // The byte-level decoder reads the letters of an added token as bytes, which only ASCII survives.
    if let Some(text) = whole.iter().find(|text| text.is_empty() || !text.is_ascii()) {
        return Err(failed(format!("`{text}` cannot be one token; give texts that are ASCII and not empty")));
    }
    let library = |error: tokenizers::Error| failed(error.to_string());
    let mut inner = qwen2::around(BPE::default()).map_err(library)?;
    let mut trainer = TrainerWrapper::BpeTrainer(
        BpeTrainerBuilder::new()
            .vocab_size(vocab_size - added)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build(),
    );
    inner.train(&mut trainer, texts.into_iter()).map_err(library)?;
    let words = whole.iter().map(|text| AddedToken::from(text.as_str(), false));
    inner.add_tokens(words).map_err(library)?;
    inner.add_special_tokens(special::ALL.map(|token| AddedToken::from(token, true))).map_err(library)?;
    Tokenizer::new(inner, name)
}
