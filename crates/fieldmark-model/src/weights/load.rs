//! Reads the weights of a checkpoint into a model.
//!
//! Burn's own store reads a single file. This one also follows a shard index, reads both key layouts and both forms of
//! the patch convolution, refuses damaged values, and names the tensor at fault.

use std::path::Path;

use super::{
    checkpoint::CheckpointMap, filler::Filler, part_types::PartTypes, published::PublishedTensors,
    weight_type::WeightType,
};
use crate::{error::ModelError, model::Qwen25Vl, parameters::ParamPath};

/// How weights are loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Number format of the parameters; `None` means the device's default.
    pub dtype: Option<WeightType>,
    /// Number formats of single parts, if they differ from `dtype`.
    pub parts: PartTypes,
}

impl Qwen25Vl {
    /// Replaces every parameter, except adapters, by the weights of a checkpoint: a folder or a safetensors file.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, unknown, duplicated, quantised, of the wrong shape or not finite, or if
    /// a head is stored that the model, whose head is tied, cannot hold. The model is then lost, so a half-loaded model
    /// cannot be used.
    pub fn load_weights(self, path: &Path, options: LoadOptions) -> Result<Self, ModelError> {
        let files = CheckpointMap::open(path)?;
        let published = PublishedTensors::of(&files)?;
        if self.lm_head.is_none() && published.has_other_head() {
            let problem = "`lm_head.weight` differs from the embedding, but `tie_word_embeddings` is true; set it to false \
                           in config.json";
            return Err(ModelError::refused(path, problem));
        }
        let tensors = if self.lm_head.is_none() { published.tied() } else { published.0 };
        let vision = &self.config().vision;
        let patch = [vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size];
        let dtype = move |name: &str| options.parts.of(name).or(options.dtype).map(WeightType::float_dtype);
        Filler::new(tensors, ParamPath::published, dtype).with_patch(patch).fill(self, path)
    }
}
