//! Which data a run reads, by content: `inputs.json` in its output folder, so that it is not continued on other data.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use fieldmark::{recipe::Recipe, train::Fingerprint};

/// Its name in the output folder.
pub const INPUTS: &str = "inputs.json";

/// The tables of rows that the stage reads, by path. Photographs are not among them.
fn files(recipe: &Recipe, stage: &str) -> Vec<PathBuf> {
    let data = &recipe.data;
    let own = match stage {
        "sft" => vec![data.sft.file.clone(), data.sft.validation.clone()],
        _ => {
            let table = || data.labels.as_ref().map(|folder| folder.join("labels.csv"));
            vec![data.tapo.file.clone().or_else(table), data.tapo.validation.clone()]
        }
    };
    own.into_iter().flatten().filter(|file| file.is_file()).collect()
}

/// The content of `inputs.json`.
///
/// # Errors
/// If a file cannot be read.
pub fn describe(recipe: &Recipe, stage: &str) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(&fingerprints(recipe, stage)?)?;
    text.push(b'\n');
    Ok(text)
}

/// Compares the data with the list at `path`. A run without a list is taken as it is.
///
/// # Errors
/// The first file that has other content or is not the run's, or a list that cannot be read.
pub fn check(path: &Path, recipe: &Recipe, stage: &str) -> anyhow::Result<()> {
    if !path.is_file() {
        return Ok(());
    }
    let place = path.display();
    let text = fs::read(path).with_context(|| format!("{place}"))?;
    let known: BTreeMap<String, Fingerprint> = serde_json::from_slice(&text)
        .with_context(|| format!("{place}: is damaged; remove it to go on with the data as they are now"))?;
    for (file, found) in fingerprints(recipe, stage)? {
        if known.get(&file).is_some_and(|known| *known != found) {
            bail!(
                "{file}: has other content than when the run began ({place}); put it back, or start anew with --set \
                 output=DIR"
            );
        }
    }
    Ok(())
}

fn fingerprints(recipe: &Recipe, stage: &str) -> anyhow::Result<BTreeMap<String, Fingerprint>> {
    let named = files(recipe, stage).into_iter().map(|file| Ok((file.display().to_string(), Fingerprint::of(&file)?)));
    named.collect()
}
