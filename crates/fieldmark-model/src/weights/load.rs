//! Reads the weights of a checkpoint into a model.
//!
//! Burn's own store reads a single file. This one also follows a shard index, reads both key layouts and both forms of
//! the patch convolution, refuses damaged values, and names the tensor at fault.

use std::path::Path;

use burn::tensor::Device;

use super::{checkpoint::CheckpointMap, filler::Filler, part_types::PartTypes, weight_type::WeightType};
use crate::{
    config::Qwen25VlConfig,
    error::ModelError,
    model::Qwen25Vl,
    parameters::{ParamPath, published_layout},
};

/// How weights are loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Number format of the parameters; `None` means the device's default.
    pub dtype: Option<WeightType>,
    /// Number formats of single parts, if they differ from `dtype`.
    pub parts: PartTypes,
}

impl Qwen25Vl {
    /// Reads `config.json` and the weights of a checkpoint folder.
    ///
    /// # Errors
    /// Returns an error if a file is missing or damaged, or if the weights do not match the configuration.
    pub fn from_pretrained(folder: &Path, options: LoadOptions, device: &Device) -> Result<Self, ModelError> {
        let config = Qwen25VlConfig::from_json_file(&folder.join("config.json"))?;
        config.init(device).load_weights(folder, options)
    }

    /// Replaces every parameter, except adapters, by the weights of a checkpoint: a folder or a safetensors file.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, unknown, duplicated, of the wrong shape or not finite. The model is
    /// then lost, so a half-loaded model cannot be used.
    pub fn load_weights(self, path: &Path, options: LoadOptions) -> Result<Self, ModelError> {
        let files = CheckpointMap::open(path)?;
        let mut tensors = files.tensors(published_layout)?;
        // Older tools stored a buffer that is computed here, and some store a copy of a tied head.
        tensors.retain(|name, _| !name.ends_with("rotary_emb.inv_freq"));
        if self.lm_head.is_none() {
            tensors.remove("lm_head.weight");
        }
        let vision = &self.config().vision;
        let patch = [vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size];
        let dtype = move |name: &str| options.parts.of(name).or(options.dtype).map(WeightType::float_dtype);
        Filler::new(tensors, ParamPath::published, dtype).with_patch(patch).fill(self, path)
    }
}
