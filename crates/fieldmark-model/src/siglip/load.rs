//! Reads the text tower from a SigLIP checkpoint: from the `text_model.*` tensors of a whole model, or from a
//! checkpoint of the tower alone, which newer tools store without this prefix.

use std::path::Path;

use burn::tensor::{Device, FloatDType};

use super::{config::SiglipTextConfig, model::SiglipTextModel};
use crate::{
    error::ModelError,
    parameters::ParamPath,
    weights::{CheckpointMap, Filler},
};

const PREFIX: &str = "text_model.";

impl SiglipTextModel {
    /// Reads `config.json` and the weights of a checkpoint folder. The weights are converted to f32.
    ///
    /// # Errors
    /// Returns an error if a file is missing or damaged, or if the weights do not match the configuration.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        let config = SiglipTextConfig::from_json_file(&folder.join("config.json"))?;
        let files = CheckpointMap::open(folder)?;
        let mut tensors = files.tensors(str::to_owned)?;
        if tensors.keys().any(|name| name.starts_with(PREFIX)) {
            tensors.retain(|name, _| name.starts_with(PREFIX));
            tensors = tensors.into_iter().map(|(name, tensor)| (name[PREFIX.len()..].to_owned(), tensor)).collect();
        }
        // Older tools stored this buffer; here it is computed.
        tensors.remove("embeddings.position_ids");
        Filler::new(tensors, ParamPath::burn_as_torch, |_| Some(FloatDType::F32)).fill(config.init(device), folder)
    }
}
