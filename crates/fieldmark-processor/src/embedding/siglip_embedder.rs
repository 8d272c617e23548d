//! A [`TextEmbedder`] from a SigLIP checkpoint: its tokenizer and its text tower. Reference: `get_text_features`.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

use burn::tensor::{Device, Tensor, TensorData};
use fieldmark_model::SiglipTextModel;

use super::{siglip_tokenizer::SiglipTokenizer, text_embedder::TextEmbedder};
use crate::error::ProcessorError;

/// Texts per forward pass of [`SiglipEmbedder::embed_all`].
const BATCH: usize = 64;

/// At least this many vectors are remembered, and at most twice as many: 12 to 25 MB at 768 numbers per vector.
const REMEMBERED: usize = 4096;

/// The text tower of a SigLIP checkpoint, in f32 and without gradients.
///
/// ```no_run
/// use burn::tensor::Device;
/// use fieldmark_processor::{SiglipEmbedder, TextEmbedder, relative_similarity};
///
/// let embedder = SiglipEmbedder::from_pretrained("siglip-base-patch16-256".as_ref(), &Device::default())?;
/// let [answer, truth, class] = ["Collie", "Border Collie", "dog"].map(|text| embedder.embed(text));
/// println!("{}", relative_similarity(&answer, &truth, &class));
/// # Ok::<(), fieldmark_processor::ProcessorError>(())
/// ```
#[derive(Debug)]
pub struct SiglipEmbedder {
    tokenizer: SiglipTokenizer,
    model: SiglipTextModel,
    device: Device,
    known: Mutex<Known>,
}

/// Vectors of recent texts in two generations: when the younger is full, the older is dropped.
#[derive(Debug, Default)]
struct Known {
    younger: HashMap<String, Vec<f32>>,
    older: HashMap<String, Vec<f32>>,
}

impl Known {
    fn get(&mut self, text: &str) -> Option<Vec<f32>> {
        if let Some(vector) = self.younger.get(text) {
            return Some(vector.clone());
        }
        let (text, vector) = self.older.remove_entry(text)?;
        self.put(text, vector.clone());
        Some(vector)
    }

    fn put(&mut self, text: String, vector: Vec<f32>) {
        if self.younger.len() >= REMEMBERED {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(text, vector);
    }
}

impl SiglipEmbedder {
    /// Reads `config.json`, the weights and `tokenizer.json` of a checkpoint folder, which may hold a whole SigLIP
    /// model or only its text tower. `device` may be a training device: the embedder never records gradients.
    ///
    /// # Errors
    /// Returns an error if a file is missing or damaged, or if the files do not fit together.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self, ProcessorError> {
        let device = device.clone().without_autodiff();
        let model = SiglipTextModel::from_pretrained(folder, &device)?;
        let config = model.config();
        let tokenizer = SiglipTokenizer::from_dir(folder, config.max_position_embeddings)?;
        if tokenizer.vocab_size() > config.vocab_size {
            let reason = format!(
                "it has {} tokens, but `vocab_size` in config.json is {}; use the tokenizer of the checkpoint",
                tokenizer.vocab_size(),
                config.vocab_size
            );
            return Err(ProcessorError::Tokenizer { name: tokenizer.name().into(), reason });
        }
        Ok(Self { tokenizer, model, device, known: Mutex::default() })
    }

    /// Computes the vectors of `texts` in batches and does not remember them. They are not normalised to length 1.
    ///
    /// # Errors
    /// Returns an error if a text cannot be encoded.
    pub fn embed_all(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ProcessorError> {
        let mut vectors = Vec::with_capacity(texts.len());
        for texts in texts.chunks(BATCH) {
            let mut ids = Vec::new();
            for text in texts {
                ids.extend(self.tokenizer.encode(text)?.into_iter().map(i64::from));
            }
            let length = ids.len() / texts.len();
            let ids_bt = Tensor::from_data(TensorData::new(ids, [texts.len(), length]), &self.device);
            let pooled_bd = self.model.forward(ids_bt).pooled;
            let width = pooled_bd.dims()[1];
            let values: Vec<f32> = pooled_bd.into_data().iter().collect();
            vectors.extend(values.chunks(width).map(<[f32]>::to_vec));
        }
        Ok(vectors)
    }

    /// The text tower.
    pub fn model(&self) -> &SiglipTextModel {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &SiglipTokenizer {
        &self.tokenizer
    }
}

impl TextEmbedder for SiglipEmbedder {
    /// Computes the text's vector, or returns it from memory: truths repeat, and most answers are names of classes. A
    /// text is computed alone, because the last bits of a row depend on the other rows of its batch, and a resumed run
    /// must score like one that never stopped. A text that cannot be encoded gets a vector of NaN.
    fn embed(&self, text: &str) -> Vec<f32> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vector) = known().get(text) {
            return vector;
        }
        match self.embed_all(&[text]).map(|mut vectors| vectors.pop()) {
            Ok(Some(vector)) => {
                known().put(text.to_owned(), vector.clone());
                vector
            }
            _ => vec![f32::NAN; self.model.config().projection_size],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_vectors_are_remembered_and_no_more_than_two_generations() {
        let mut known = Known::default();
        let number = |i: usize| vec![i as f32];
        for i in 0..5 * REMEMBERED / 2 {
            known.put(i.to_string(), number(i));
            assert_eq!(known.get("0"), Some(number(0)), "asked for again and again");
        }
        assert!(known.younger.len() <= REMEMBERED && known.older.len() <= REMEMBERED);
        assert_eq!(known.get("1"), None);
        let last = 5 * REMEMBERED / 2 - 1;
        assert_eq!(known.get(&last.to_string()), Some(number(last)));
    }
}
