//! What turns a text into a vector.

/// Makes a vector of a text.
pub trait TextEmbedder: Send + Sync {
    /// The text's vector, of any length but 0; always as long, and finite unless the text cannot be read.
    fn embed(&self, text: &str) -> Vec<f32>;
}
