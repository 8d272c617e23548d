//! The checkpoints of a run: folders such as `step-000012`, each complete or absent. The newest few and the best are
//! kept.
//!
//! A checkpoint has the files that the caller writes, a folder `trainer` with optimiser and state, and a list of all
//! files.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use fieldmark_model::files::{persist_folder, write_whole};
use fieldmark_train::trainer::{Mark, Updater};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::manifest::Manifest;
use crate::error::RunError;

/// The best checkpoint of a run so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Name of the metric that decides.
    pub metric: String,
    /// Value of the metric.
    pub value: f64,
    /// Position of the checkpoint in the run.
    pub mark: Mark,
}

/// The folder with the checkpoints of a run.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// The checkpoints in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Returns the folder of a checkpoint.
    pub fn path(&self, mark: Mark) -> PathBuf {
        self.folder.join(mark.name())
    }

    /// Lists all checkpoints, oldest first. Damaged ones are included.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Mark>, RunError> {
        let mut marks: Vec<Mark> = self.names()?.iter().filter_map(|name| Mark::parse(name)).collect();
        marks.sort_unstable();
        Ok(marks)
    }

    fn names(&self) -> Result<Vec<String>, RunError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.error(source)),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<std::io::Result<_>>().map_err(|source| self.error(source))
    }

    /// Saves a checkpoint: `fill` writes its files to the given folder, `updater` and `state` go to `trainer`. The
    /// checkpoint appears when all of it is on disk. It replaces one with the same mark.
    ///
    /// # Errors
    /// Returns the errors of `fill`, or an error if a file cannot be written. The checkpoint then does not appear.
    pub fn save(
        &self,
        mark: Mark,
        updater: &Updater,
        state: &impl Serialize,
        fill: impl FnOnce(&Path) -> Result<(), RunError>,
    ) -> Result<PathBuf, RunError> {
        let target = self.path(mark);
        fs::create_dir_all(&self.folder).map_err(|source| self.error(source))?;
        let made = tempfile::Builder::new().prefix(&format!(".{}-", mark.name())).tempdir_in(&self.folder);
        let made = made.map_err(|source| self.error(source))?;
        fill(made.path())?;
        let trainer = made.path().join("trainer");
        fs::create_dir_all(&trainer).map_err(at(&trainer))?;
        updater.save_optimizer(&Self::moments(made.path())).map_err(RunError::from)?;
        let path = trainer.join("state.toml");
        let text = toml::to_string(state).map_err(|error| RunError::path(&path, error.to_string()))?;
        write_whole(&path, text.as_bytes()).map_err(at(&path))?;
        Manifest::write(made.path())?;
        persist_folder(made, &target).map_err(at(&target))?;
        Ok(target)
    }

    /// Returns the file with the optimiser's moments of a checkpoint.
    pub fn moments(checkpoint: &Path) -> PathBuf {
        checkpoint.join("trainer/optimizer.bpk")
    }

    /// The folder with the exact weights of a checkpoint. It exists only if the other weights of the checkpoint are
    /// rounded.
    pub(crate) fn exact(checkpoint: &Path) -> PathBuf {
        checkpoint.join("trainer/weights")
    }

    /// Returns the folder with the exact weights of a checkpoint, in the format in which they were computed.
    pub fn weights(checkpoint: &Path) -> PathBuf {
        let exact = Self::exact(checkpoint);
        if exact.is_dir() { exact } else { checkpoint.into() }
    }

    /// Reads the state of a checkpoint.
    ///
    /// # Errors
    /// Returns an error if the state cannot be read.
    pub fn state<T: DeserializeOwned>(checkpoint: &Path) -> Result<T, RunError> {
        let path = checkpoint.join("trainer/state.toml");
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        toml::from_str(&text).map_err(|error| RunError::path(path, error.message()))
    }

    /// Finds the newest checkpoint whose files are all as they were saved. Calls `damaged` for each newer checkpoint,
    /// and for each unfinished one that a killed run left.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read.
    pub fn newest_whole(&self, mut damaged: impl FnMut(&RunError)) -> Result<Option<Mark>, RunError> {
        for name in self.names()?.iter().filter(|name| name.starts_with(".step-")) {
            let reason = "is incomplete: the run ended while saving it".into();
            damaged(&RunError::Damaged { path: self.folder.join(name), reason });
        }
        for mark in self.list()?.into_iter().rev() {
            match Manifest::verify(&self.path(mark)) {
                Ok(()) => return Ok(Some(mark)),
                Err(error) => damaged(&error),
            }
        }
        Ok(None)
    }

    /// Removes all checkpoints except the newest `keep` and `best`. Also removes unfinished ones.
    ///
    /// # Errors
    /// Returns an error if a checkpoint cannot be removed.
    pub fn rotate(&self, keep: usize, best: Option<Mark>) -> Result<(), RunError> {
        let marks = self.list()?;
        let old = marks.iter().take(marks.len().saturating_sub(keep));
        self.remove(old.copied().filter(|&mark| Some(mark) != best))
    }

    /// Removes all checkpoints after `mark`, when a run continues from there because the later ones are damaged. Also
    /// removes unfinished ones.
    ///
    /// # Errors
    /// Returns an error if a checkpoint cannot be removed.
    pub fn remove_after(&self, mark: Mark) -> Result<(), RunError> {
        self.remove(self.list()?.into_iter().filter(|&other| other > mark))
    }

    fn remove(&self, marks: impl Iterator<Item = Mark>) -> Result<(), RunError> {
        self.sweep()?;
        for mark in marks {
            // Rename first: a half-removed folder must not look like a checkpoint.
            let (path, aside) = (self.path(mark), self.folder.join(format!(".old-{}", mark.name())));
            fs::rename(&path, &aside).map_err(at(&path))?;
        }
        self.sweep()
    }

    fn sweep(&self) -> Result<(), RunError> {
        for name in self.names()?.iter().filter(|name| name.starts_with('.')) {
            let path = self.folder.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(at(&path))?;
        }
        Ok(())
    }

    fn error(&self, source: std::io::Error) -> RunError {
        RunError::Io { path: self.folder.clone(), source }
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> RunError + '_ {
    move |source| RunError::Io { path: path.into(), source }
}
