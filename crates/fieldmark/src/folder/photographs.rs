//! The photographs of a run with the SHA-256 of each, in the form of `sha256sum`: the sum, two blanks, the path.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::manifest::Fingerprint;
use crate::error::RunError;

/// The photographs of a run, each once, in the order of their first use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Photographs(Vec<String>);

impl Photographs {
    /// Reads the photographs on all cores.
    ///
    /// # Errors
    /// Returns an error if a photograph cannot be read.
    pub(super) fn of<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<Self, RunError> {
        let mut seen = BTreeSet::new();
        let files: Vec<&Path> = files.into_iter().filter(|file| seen.insert(*file)).collect();
        let contents = Fingerprint::of_all(files.iter().copied())?;
        let lines = files.iter().zip(contents);
        Ok(Self(lines.map(|(file, content)| format!("{}  {}", content.sha256(), file.display())).collect()))
    }

    fn pairs(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|line| line.split_once("  ").unwrap_or((line, ""))).collect()
    }

    /// Compares the photographs that a run uses `now` with these. `list` is the file that these were read from.
    ///
    /// # Errors
    /// Returns an error that names the first photograph that differs and is not in `exempt`.
    pub(super) fn check(&self, now: &Self, list: &Path, exempt: &[PathBuf]) -> Result<(), RunError> {
        let (then, now) = (self.pairs(), now.pairs());
        let is_exempt = |path: &str| exempt.iter().any(|exempt| exempt == Path::new(path));
        // First by path, so that the right one is named. If the folder moved, by content.
        let by_path: BTreeMap<&str, &str> = then.iter().map(|&(sum, path)| (path, sum)).collect();
        let sums: BTreeSet<&str> = then.iter().map(|&(sum, _)| sum).collect();
        let is_changed = |&&(sum, path): &&(&str, &str)| by_path.get(path).is_some_and(|then| *then != sum);
        let is_unknown = |&&(sum, _): &&(&str, &str)| !sums.contains(sum);
        let mut asked = now.iter().filter(|(_, path)| !is_exempt(path));
        if let Some((_, path)) = asked.clone().find(is_changed).or_else(|| asked.find(is_unknown)) {
            return Err(changed(Path::new(path), list));
        }
        let pairs = then.iter().zip(&now).find(|(then, now)| then.0 != now.0 && !is_exempt(now.1));
        match pairs {
            Some((_, (_, path))) => Err(changed(Path::new(path), list)),
            None if then.len() == now.len() => Ok(()),
            None => {
                let problem = format!(
                    "the rows now use {} photographs instead of {} ({})",
                    now.len(),
                    then.len(),
                    list.display()
                );
                Err(RunError::path(now.last().map_or("", |(_, path)| path), problem))
            }
        }
    }
}

/// The error for a file whose content is not that of `list`.
pub(super) fn changed(path: &Path, list: &Path) -> RunError {
    let problem = format!(
        "changed since the run started ({}); restore it, or start a new run with --set output=DIR",
        list.display()
    );
    RunError::path(path, problem)
}
