//! Tokens to text one by one, for an answer that is shown while it is written: never half a character.
//!
//! A byte-level token may end inside a UTF-8 character, so tokens are held back until their bytes are complete.
//! What is emitted, put together, is what decoding all tokens at once gives.

use super::tokenizer::{SpecialTokens, Tokenizer};
use crate::error::ProcessorError;

/// The tokens of one answer whose text has not been emitted yet.
#[derive(Debug, Clone)]
pub struct TextStream {
    held: Vec<u32>,
    specials: SpecialTokens,
}

impl TextStream {
    /// A stream at its beginning.
    pub fn new(specials: SpecialTokens) -> Self {
        Self { held: Vec::new(), specials }
    }

    /// Takes the next token and returns the text that is complete with it, often empty.
    ///
    /// # Errors
    /// [`ProcessorError::Tokenizer`] if the tokens cannot be decoded.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, ProcessorError> {
        self.held.push(id);
        let text = tokenizer.decode(&self.held, self.specials)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.held.clear();
        Ok(text)
    }

    /// The rest, with U+FFFD for bytes that never became a character.
    ///
    /// # Errors
    /// [`ProcessorError::Tokenizer`] if the tokens cannot be decoded.
    pub fn finish(self, tokenizer: &Tokenizer) -> Result<String, ProcessorError> {
        tokenizer.decode(&self.held, self.specials)
    }
}
