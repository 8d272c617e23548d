//! Reads a SigLIP checkpoint into a text tower: `text_model.*` of a whole model, whose other tensors are left alone, or the
//! same names without that prefix, as newer tools store the tower alone.

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
    /// Reads `config.json` and the weights of a checkpoint folder, into f32 whatever they are stored in.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the weights do not fit the configuration.
    pub fn from_pretrained(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        let config = SiglipTextConfig::from_json_file(&folder.join("config.json"))?;
        let files = CheckpointMap::open(folder)?;
        let mut tensors = files.tensors(str::to_owned)?;
        if tensors.keys().any(|name| name.starts_with(PREFIX)) {
            tensors.retain(|name, _| name.starts_with(PREFIX));
            tensors = tensors.into_iter().map(|(name, tensor)| (name[PREFIX.len()..].to_owned(), tensor)).collect();
        }
        // A buffer that is computed here, and that older tools stored.
        tensors.remove("embeddings.position_ids");
        Filler::new(tensors, ParamPath::burn_as_torch, |_| Some(FloatDType::F32)).fill(config.init(device), folder)
    }
}
