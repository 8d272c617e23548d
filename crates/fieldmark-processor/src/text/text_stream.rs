//! Decodes tokens one by one, to show an answer while it is generated; never emits half a character.
//!
//! A byte-level token may end inside a UTF-8 character, so tokens are held back until their bytes are complete.
//! The emitted texts joined are the text of all tokens decoded at once.

use super::tokenizer::{SpecialTokens, Tokenizer};
use crate::error::ProcessorError;

/// The tokens of one answer whose text has not been emitted yet.
#[derive(Debug, Clone)]
pub struct TextStream {
    held: Vec<u32>,
    specials: SpecialTokens,
}

impl TextStream {
    /// Creates a stream that holds no tokens.
    pub fn new(specials: SpecialTokens) -> Self {
        Self { held: Vec::new(), specials }
    }

    /// Adds the next token and returns the text that is now complete, which is often empty.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Tokenizer`] if the tokens cannot be decoded.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, ProcessorError> {
        self.held.push(id);
        let text = tokenizer.decode(&self.held, self.specials)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.held.clear();
        Ok(text)
    }

    /// Returns the rest, with U+FFFD for bytes that never became a character.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Tokenizer`] if the tokens cannot be decoded.
    pub fn finish(self, tokenizer: &Tokenizer) -> Result<String, ProcessorError> {
        tokenizer.decode(&self.held, self.specials)
    }
}
