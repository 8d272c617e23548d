//! A new model with its processor, and the checkpoint folder that it becomes.

use std::path::Path;

use burn::{module::Module, tensor::Device};
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::train_tokenizer;
use fieldmark_stream::StreamKey;
use fieldmark_train::params::initialise;

use super::shape::Shape;
use crate::{Checkpoint, error::RunError, folder::RunFolder};

/// The option of `fieldmark init` that names the folder.
const OPTION: &str = "--out DIR";

/// A model that is not on the disk yet.
#[derive(Debug, Clone)]
pub struct NewModel {
    /// The model, with random weights.
    pub model: Qwen25Vl,
    /// Its processor and settings; [`Checkpoint::save_in`] and [`Checkpoint::fill`] write it.
    pub checkpoint: Checkpoint,
}

impl Shape {
    /// Trains the tokenizer on `texts` and draws the weights with the streams of `seed`. The same shape, texts and seed
    /// always give the same model.
    ///
    /// # Errors
    /// Returns [`RunError::Setting`] with the key of the first setting that describes no model, or whose tokenizer is
    /// impossible.
    pub fn make(&self, texts: &[String], seed: u64, device: &Device) -> Result<NewModel, RunError> {
        self.check()?;
        let tokenizer = train_tokenizer(texts, &self.whole, self.vocab_size).map_err(|error| RunError::Setting {
            key: "vocab_size".into(),
            value: self.vocab_size.to_string(),
            problem: error.to_string(),
        })?;
        let processor = self.processor(tokenizer)?;
        let config = self.config(&processor.tokenizer);
        let model = initialise(config.init(device), self.initializer_range, &StreamKey::new(seed));
        Ok(NewModel { model, checkpoint: Checkpoint::made(processor, &config) })
    }
}

impl NewModel {
    /// Number of parameters.
    pub fn parameters(&self) -> usize {
        self.model.num_params()
    }

    /// Checks that `folder` is a name for a new folder: one that does not exist yet, or is empty.
    ///
    /// # Errors
    /// Returns an error that names the folder if it is not.
    pub fn check_folder(folder: &Path) -> Result<(), RunError> {
        if folder.file_name().is_none() {
            return Err(RunError::path(folder, "is not a name for a new folder; give one such as runs/new"));
        }
        if folder.exists() && !(folder.is_dir() && RunFolder::given_by(OPTION, folder)?.is_empty()?) {
            let problem = "exists and is not an empty folder; remove it, or name another";
            return Err(RunError::path(folder, problem));
        }
        Ok(())
    }

    /// Writes the checkpoint as `folder`, with every file that transformers loads. The folder is filled as a whole or not
    /// at all.
    ///
    /// # Errors
    /// Returns the errors of [`Self::check_folder`], an error if another command writes to the folder, and an error if a
    /// file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), RunError> {
        Self::check_folder(folder)?;
        let was_there = folder.is_dir();
        let written = self.write_locked(folder);
        if written.is_err() && !was_there {
            // Removes it only if it is empty: another command may have filled it.
            let _ = std::fs::remove_dir(folder);
        }
        written
    }

    fn write_locked(&self, folder: &Path) -> Result<(), RunError> {
        let own = RunFolder::given_by(OPTION, folder)?;
        own.create()?;
        let _lock = own.lock()?;
        Self::check_folder(folder)?;
        let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let parent = RunFolder::given_by(OPTION, parent)?;
        parent.create()?;
        let filled = parent.write_folder(&name, |inside| {
            self.checkpoint.fill(&self.model, inside)?;
            own.keep_incidental(inside)
        });
        filled.map(drop)
    }
}
