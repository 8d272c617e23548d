//! `inputs.json` in the folder of a run: size and SHA-256 of its data files, so that the run is not resumed on other
//! data.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::manifest::Fingerprint;
use crate::error::RunError;

/// Name of the file in the folder of a run.
pub const INPUTS: &str = "inputs.json";

/// The data files of a run with the size and SHA-256 of each. Photographs are not included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inputs(BTreeMap<String, Fingerprint>);

impl Inputs {
    /// Reads the files. Ignores paths that are not files.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub fn of(files: impl IntoIterator<Item = PathBuf>) -> Result<Self, RunError> {
        let files = files.into_iter().filter(|file| file.is_file());
        let named = files.map(|file| Ok((file.display().to_string(), Fingerprint::of(&file)?)));
        Ok(Self(named.collect::<Result<_, RunError>>()?))
    }

    /// Returns the content of `inputs.json`.
    ///
    /// # Errors
    /// Returns an error if the list cannot be written as JSON, which does not happen in practice.
    pub fn to_json(&self) -> Result<Vec<u8>, RunError> {
        let mut text = serde_json::to_vec_pretty(&self.0).map_err(RunError::LogRow)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Compares the files with the list at `path`. If there is no list, nothing is compared.
    ///
    /// # Errors
    /// Returns an error for the first file that changed, or if the list cannot be read.
    pub fn check(&self, path: &Path) -> Result<(), RunError> {
        if !path.is_file() {
            return Ok(());
        }
        let text = fs::read(path).map_err(RunError::io(path))?;
        let known: BTreeMap<String, Fingerprint> = serde_json::from_slice(&text).map_err(|error| {
            RunError::path(path, format!("is damaged ({error}); remove it to resume with the data as they are now"))
        })?;
        match self.0.iter().find(|(file, found)| known.get(*file).is_some_and(|known| known != *found)) {
            None => Ok(()),
            Some((file, _)) => {
                let problem = format!(
                    "changed since the run started ({}); restore it, or start a new run with --set output=DIR",
                    path.display()
                );
                Err(RunError::path(file, problem))
            }
        }
    }
}
