//! The checkpoints of a run: folders `step-000012`, each of them whole or not there, the newest few and the best kept.
//!
//! A checkpoint is what the caller fills it with, a `trainer` folder with optimiser and state, and a list of all its files.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use fieldmark_model::files::{persist_folder, write_whole};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{TrainError, Updater, manifest::Manifest};

/// The place of a checkpoint in its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// Updates (SFT) or rollout steps (TAPO) made.
    pub step: usize,
    /// Updates made of a rollout step that is not at its end.
    pub updates: usize,
}

impl Mark {
    /// The folder's name, such as `step-000012` or `step-000012-update-2`.
    pub fn name(self) -> String {
        match self.updates {
            0 => format!("step-{:06}", self.step),
            updates => format!("step-{:06}-update-{updates}", self.step),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let numbers = name.strip_prefix("step-")?;
        let (step, updates) = numbers.split_once("-update-").unwrap_or((numbers, "0"));
        let mark = Self { step: step.parse().ok()?, updates: updates.parse().ok()? };
        (mark.name() == name).then_some(mark)
    }
}

/// The best checkpoint of a run so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// What it is best in.
    pub metric: String,
    /// The value of that.
    pub value: f64,
    /// Which it is.
    pub mark: Mark,
}

/// A folder of checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
}

impl Checkpoints {
    /// Those in `folder`, which need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder of a checkpoint.
    pub fn path(&self, mark: Mark) -> PathBuf {
        self.folder.join(mark.name())
    }

    /// All that have their name, oldest first, whole or damaged.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Mark>, TrainError> {
        let mut marks: Vec<Mark> = self.names()?.iter().filter_map(|name| Mark::parse(name)).collect();
        marks.sort_unstable();
        Ok(marks)
    }

    fn names(&self) -> Result<Vec<String>, TrainError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(self.error(source)),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<std::io::Result<_>>().map_err(|source| self.error(source))
    }

    /// Saves what `fill` writes into the folder it is given, with `updater` and `state` in `trainer`. The checkpoint is there
    /// once all of it is on the disk, in place of one of the same mark.
    ///
    /// # Errors
    /// Those of `fill`, and if something cannot be written; then it is not there.
    pub fn save<E: From<TrainError>>(
        &self,
        mark: Mark,
        updater: &Updater,
        state: &impl Serialize,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let target = self.path(mark);
        fs::create_dir_all(&self.folder).map_err(|source| self.error(source))?;
        let made = tempfile::Builder::new().prefix(&format!(".{}-", mark.name())).tempdir_in(&self.folder);
        let made = made.map_err(|source| self.error(source))?;
        fill(made.path())?;
        let trainer = made.path().join("trainer");
        fs::create_dir_all(&trainer).map_err(at(&trainer))?;
        updater.save_optimizer(&Self::moments(made.path()))?;
        let path = trainer.join("state.toml");
        let text = toml::to_string(state)
            .map_err(|error| TrainError::State { path: path.clone(), reason: error.to_string() })?;
        write_whole(&path, text.as_bytes()).map_err(at(&path))?;
        Manifest::write(made.path())?;
        persist_folder(made, &target).map_err(at(&target))?;
        Ok(target)
    }

    /// File of the moments in a checkpoint's folder.
    pub fn moments(checkpoint: &Path) -> PathBuf {
        checkpoint.join("trainer/optimizer.bpk")
    }

    /// The state that a checkpoint was saved with.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn state<T: DeserializeOwned>(checkpoint: &Path) -> Result<T, TrainError> {
        let path = checkpoint.join("trainer/state.toml");
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        toml::from_str(&text).map_err(|error| TrainError::State { path, reason: error.message().to_string() })
    }

    /// The newest checkpoint of which every file is as it was saved. `damaged` is told of newer ones, and of what a run left
    /// that ended while it saved.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn newest_whole(&self, mut damaged: impl FnMut(&TrainError)) -> Result<Option<Mark>, TrainError> {
        for name in self.names()?.iter().filter(|name| name.starts_with(".step-")) {
            let reason = "is unfinished: its run ended while it was saved".into();
            damaged(&TrainError::Damaged { path: self.folder.join(name), reason });
        }
        for mark in self.list()?.into_iter().rev() {
            match Manifest::verify(&self.path(mark)) {
                Ok(()) => return Ok(Some(mark)),
                Err(error) => damaged(&error),
            }
        }
        Ok(None)
    }

    /// Removes all but the newest `keep` and `best`, and whatever was left unfinished.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn rotate(&self, keep: usize, best: Option<Mark>) -> Result<(), TrainError> {
        let marks = self.list()?;
        let old = marks.iter().take(marks.len().saturating_sub(keep));
        self.remove(old.copied().filter(|&mark| Some(mark) != best))
    }

    /// Removes what comes after `mark`: a run goes on from there, and the later ones are damaged. What was left unfinished
    /// goes too.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove_after(&self, mark: Mark) -> Result<(), TrainError> {
        self.remove(self.list()?.into_iter().filter(|&other| other > mark))
    }

    fn remove(&self, marks: impl Iterator<Item = Mark>) -> Result<(), TrainError> {
        self.sweep()?;
        for mark in marks {
            // Under another name first: a folder in part must not look like a checkpoint.
            let (path, aside) = (self.path(mark), self.folder.join(format!(".old-{}", mark.name())));
            fs::rename(&path, &aside).map_err(at(&path))?;
        }
        self.sweep()
    }

    fn sweep(&self) -> Result<(), TrainError> {
        for name in self.names()?.iter().filter(|name| name.starts_with('.')) {
            let path = self.folder.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(at(&path))?;
        }
        Ok(())
    }

    fn error(&self, source: std::io::Error) -> TrainError {
        TrainError::File { path: self.folder.clone(), source }
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> TrainError + '_ {
    move |source| TrainError::File { path: path.into(), source }
}
