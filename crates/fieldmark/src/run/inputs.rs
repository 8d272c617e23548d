//! What a stage reads: kept apart from what it overwrites, recorded when the run starts, compared when it is resumed.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use fieldmark_train::reward::SEMANTIC;

use super::setup::RunSetup;
use crate::{
    Stage,
    checkpoint::Checkpoint,
    error::RunError,
    folder::{Begin, INPUTS, Inputs, LEFT_BEHIND, RunFolder, Source},
    recipe::{Recipe, SftData, TapoData},
};

/// The data files that a stage reads, with the keys that name them.
fn files(recipe: &Recipe, stage: Stage) -> Vec<(&'static str, PathBuf)> {
    let data = &recipe.data;
    let table = data.labels.as_ref().map(|folder| ("data.labels", folder.join("labels.csv")));
    let named = |key, file: &Option<PathBuf>| file.clone().map(|file| (key, file));
    let aliases = data.aliases_file().map(|file| ("data.aliases", file.to_path_buf()));
    // The table decides which classes are held out of a file, and a run without a file is made from it.
    let table = |file: &Option<PathBuf>| table.filter(|_| file.is_none() || data.held_out_table().is_some());
    let found = match stage {
        Stage::Sft => {
            let SftData { file, validation, .. } = &data.sft;
            [named("data.sft.file", file), named("data.sft.validation", validation), table(file), None]
        }
        Stage::Tapo => {
            let TapoData { file, validation, .. } = &data.tapo;
            [named("data.tapo.file", file), named("data.tapo.validation", validation), table(file), aliases]
        }
    };
    found.into_iter().flatten().collect()
}

/// The folder of the adapter that a run begins with, with its files.
pub(super) fn adapter(recipe: &Recipe) -> Option<PathBuf> {
    recipe.model.adapter_files().first().and_then(|file| Some(file.parent()?.to_path_buf()))
}

/// The folder of the text encoder, if a reward of the stage uses it.
fn encoder(recipe: &Recipe, stage: Stage) -> Option<&Path> {
    let is_used = stage == Stage::Tapo && recipe.tapo.rewards.contains_key(SEMANTIC);
    recipe.model.text_encoder.as_deref().filter(|path| is_used && path.is_dir())
}

/// The sources that can be named before they are opened.
pub(super) fn sources(recipe: &Recipe, stage: Stage) -> Vec<Source> {
    let models = Checkpoint::source(&recipe.model).map(|folder| Source::model("model.path", folder)).into_iter();
    let models = models.chain(adapter(recipe).map(|folder| Source::model("model.adapter", folder)));
    let models = models.chain(encoder(recipe, stage).map(|folder| Source::model("model.text_encoder", folder)));
    let data = &recipe.data;
    let folders = [("data.images", &data.images), ("data.labels", &data.labels)];
    let folders = folders.into_iter().filter_map(|(key, path)| Some((key, path.clone()?)));
    let prefixes = data.prefixes.values().map(|folder| ("data.prefixes", folder.clone()));
    let data = files(recipe, stage).into_iter().chain(folders).chain(prefixes);
    let data = data.map(|(key, path)| Source::data(key, path));
    models.chain(data).filter(|source| !source.path.as_os_str().is_empty()).collect()
}

/// Checks that the folder does not overwrite a photograph that is read.
pub(super) fn keep_photographs_apart(
    folder: &RunFolder,
    names: &[&str],
    photographs: &[PathBuf],
) -> Result<(), RunError> {
    let real = |photo: &PathBuf| std::fs::canonicalize(photo).unwrap_or_else(|_| photo.clone());
    let folders: BTreeSet<PathBuf> =
        photographs.iter().filter_map(|photo| Some(real(photo).parent()?.to_path_buf())).collect();
    let sources: Vec<Source> = folders.into_iter().map(|path| Source::data("data.images", path)).collect();
    folder.keep_apart(names, &sources)
}

/// Reads the content of the data files and models of a stage.
///
/// # Errors
/// Returns an error if one of them cannot be read.
pub(super) fn read(recipe: &Recipe, stage: Stage) -> Result<Inputs, RunError> {
    let mut inputs = Inputs::default();
    for (key, file) in files(recipe, stage) {
        inputs = inputs.file(key, &file)?;
    }
    inputs = inputs.model("model.path", &Checkpoint::source(&recipe.model)?)?;
    if let Some(folder) = adapter(recipe) {
        inputs = inputs.model("model.adapter", &folder)?;
    }
    match encoder(recipe, stage) {
        Some(folder) => inputs.model("model.text_encoder", folder),
        None => Ok(inputs),
    }
}

/// Records the inputs of a run that starts, or compares the photographs of a run that continues.
///
/// # Errors
/// Returns an error if a photograph changed since the run started, or lies in what the run overwrites.
pub(super) fn check_photographs<'a>(
    recipe: &Recipe,
    setup: &mut RunSetup,
    stage: Stage,
    photographs: impl Iterator<Item = &'a Path>,
) -> Result<(), RunError> {
    let photographs: Vec<PathBuf> = photographs.map(Path::to_path_buf).collect();
    keep_photographs_apart(&setup.folder, &LEFT_BEHIND, &photographs)?;
    let with = |inputs: Inputs| inputs.photographs(photographs.iter().map(PathBuf::as_path));
    match setup.begin {
        Begin::Start => setup.records.push((INPUTS.into(), with(self::read(recipe, stage)?)?.to_json()?)),
        Begin::Continue { .. } => {
            with(Inputs::default())?.check_photographs(&setup.folder.file(INPUTS), &[])?;
        }
        Begin::Finished => {}
    }
    Ok(())
}
