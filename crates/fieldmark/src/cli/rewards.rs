//! The rewards that a recipe can name: the standard ones, and `semantic` under the text encoder of `model.text_encoder`.

use std::path::Path;

use anyhow::anyhow;
use burn::tensor::Device;
use fieldmark::{
    processor::{SiglipEmbedder, TextEmbedder},
    recipe::Recipe,
    train::{RewardRegistry, SEMANTIC, TrainError},
};

/// Checks names and weights of the rewards. Nothing is loaded.
///
/// # Errors
/// Those of [`RewardRegistry::choose`].
pub fn names(recipe: &Recipe) -> Result<(), TrainError> {
    RewardRegistry::standard(&recipe.tapo).with_semantic(Nothing).choose(&recipe.tapo).map(drop)
}

/// Stands for an encoder while names are checked.
struct Nothing;

impl TextEmbedder for Nothing {
    fn embed(&self, _text: &str) -> Vec<f32> {
        vec![f32::NAN]
    }
}

/// The folder of the text encoder that the recipe's rewards need, if they need one.
///
/// # Errors
/// If they need one and none is named.
pub fn encoder(recipe: &Recipe) -> anyhow::Result<Option<&Path>> {
    if !recipe.tapo.rewards.contains_key(SEMANTIC) {
        return Ok(None);
    }
    let named = recipe.model.text_encoder.as_deref().filter(|path| !path.as_os_str().is_empty());
    named.map(Some).ok_or_else(|| {
        anyhow!(
            "`tapo.rewards.{SEMANTIC}` needs a text encoder: set `model.text_encoder` to a checkpoint folder of SigLIP, such \
             as google/siglip-base-patch16-256"
        )
    })
}

/// The rewards, with the text encoder on `device` if the recipe needs one.
///
/// # Errors
/// Those of [`encoder`], and whatever is wrong with the encoder's files.
pub fn registry(recipe: &Recipe, device: &Device) -> anyhow::Result<RewardRegistry> {
    let standard = RewardRegistry::standard(&recipe.tapo);
    let Some(folder) = encoder(recipe)? else { return Ok(standard) };
    let embedder = SiglipEmbedder::from_pretrained(folder, device);
    let embedder = embedder.map_err(|error| anyhow!("`model.text_encoder`: {error}"))?;
    Ok(standard.with_semantic(embedder))
}
