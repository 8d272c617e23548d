//! The rewards that a recipe can name: the standard rewards, and `semantic` with the text encoder `model.text_encoder`.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::Device;
use fieldmark_processor::{SiglipEmbedder, TextEmbedder, Tokenizer};
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

/// Returns a line that names the first truth that no response can hold, or `None` if there is room for all. `truths` are
/// truth, aliases and name of each row.
///
/// The shortest response that is right has the answer in its tags and the end token; with the reward `accuracy` and
/// `tapo.think`, the tags of an empty thought too. Rewards that compare no names have room for every truth.
///
/// # Errors
/// Returns an error if a text cannot be turned into tokens.
pub fn too_long<'a>(
    config: &TapoConfig,
    truths: impl Iterator<Item = (&'a str, &'a [String], &'a str)>,
    tokenizer: &Tokenizer,
) -> Result<Option<String>, RunError> {
    let pays = |name: &str| config.rewards.get(name).is_some_and(|weight| *weight > 0.0);
    let thought = match (pays("inclusion") || pays("exact"), pays("accuracy")) {
        (true, _) => "",
        (false, true) if config.think => "<think></think>",
        (false, true) => "",
        (false, false) => return Ok(None),
    };
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut rows, mut long, mut first) = (0, 0, None);
    for (truth, aliases, row) in truths {
        let needed = match known.get(truth) {
            Some(&needed) => needed,
            None => {
                let mut fewest = usize::MAX;
                for name in std::iter::once(truth).chain(aliases.iter().map(String::as_str)) {
                    let response = format!("{thought}<answer>{name}</answer>");
                    fewest = fewest.min(tokenizer.encode(&response)?.len() + 1);
                }
                known.insert(truth, fewest);
                fewest
            }
        };
        rows += 1;
        if needed > config.max_new_tokens {
            long += 1;
            first.get_or_insert((row, truth, needed));
        }
    }
    Ok(first.map(|(row, truth, needed)| {
        format!(
            "{long} of {rows} truths do not fit into tapo.max_new_tokens = {}, so that no response can be right; the \
             first is {truth:?} in {row}: it needs {needed} tokens with its tags",
            config.max_new_tokens
        )
    }))
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
