//! What turns a text into a vector.

/// Turns a text into a vector.
pub trait TextEmbedder: Send + Sync {
    /// The text's vector. Its length is always the same and not 0; its values are finite unless the text cannot be
    /// encoded.
    fn embed(&self, text: &str) -> Vec<f32>;
}
