//! Texts to vectors, and how alike two texts are by their vectors.

mod siglip_embedder;
mod siglip_tokenizer;
mod similarity;
mod text_embedder;

pub use siglip_embedder::SiglipEmbedder;
pub use siglip_tokenizer::SiglipTokenizer;
pub use similarity::{cosine, relative_similarity};
pub use text_embedder::TextEmbedder;
