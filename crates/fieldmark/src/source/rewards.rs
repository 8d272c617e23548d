//! The rewards that a recipe can name: the standard rewards, and `semantic` with the text encoder `model.text_encoder`.

use std::path::Path;

use burn::tensor::Device;
use fieldmark_processor::{SiglipEmbedder, TextEmbedder};
use fieldmark_train::{
    TrainError,
    reward::{RewardRegistry, SEMANTIC},
    tapo::TapoConfig,
};

use crate::error::RunError;

/// Checks the names and weights of the rewards without loading anything.
///
/// # Errors
/// Returns the errors of [`RewardRegistry::choose`].
pub fn check_rewards(config: &TapoConfig) -> Result<(), TrainError> {
    RewardRegistry::standard(config).with_semantic(Nothing).choose(config).map(drop)
}

/// Takes the place of an encoder while names are checked.
struct Nothing;

impl TextEmbedder for Nothing {
    fn embed(&self, _text: &str) -> Vec<f32> {
        vec![f32::NAN]
    }
}

/// Returns the folder of the text encoder, or `None` if the rewards need none. `named` is `model.text_encoder`.
///
/// # Errors
/// Returns an error if the rewards need an encoder and none is set.
pub fn text_encoder<'a>(config: &TapoConfig, named: Option<&'a Path>) -> Result<Option<&'a Path>, RunError> {
    let Some(weight) = config.rewards.get(SEMANTIC) else { return Ok(None) };
    let named = named.filter(|path| !path.as_os_str().is_empty());
    named.map(Some).ok_or_else(|| RunError::Setting {
        key: format!("tapo.rewards.{SEMANTIC}"),
        value: weight.to_string(),
        problem: "needs a text encoder: set `model.text_encoder` to a checkpoint folder of SigLIP, such as \
                  google/siglip-base-patch16-256"
            .into(),
    })
}

/// Makes the registry of rewards. Loads the text encoder onto `device` if the settings need one.
///
/// # Errors
/// Returns the errors of [`text_encoder`], and an error if the encoder's files cannot be read.
pub fn reward_registry(config: &TapoConfig, named: Option<&Path>, device: &Device) -> Result<RewardRegistry, RunError> {
    let standard = RewardRegistry::standard(config);
    let Some(folder) = text_encoder(config, named)? else { return Ok(standard) };
    let embedder = SiglipEmbedder::from_pretrained(folder, device);
    let embedder = embedder.map_err(|error| RunError::Setting {
        key: "model.text_encoder".into(),
        value: folder.display().to_string(),
        problem: error.to_string(),
    })?;
    Ok(standard.with_semantic(embedder))
}
