//! What can stop a run, each with the file, row or recipe key that it concerns and what to do.

use std::{io, path::PathBuf};

use fieldmark_train::TrainError;

/// The errors of runs, their folders, logs and sources.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Something that a run needs is not named.
    #[error("no {what}; name one with --set {key}")]
    Missing {
        /// What is not named.
        what: &'static str,
        /// The recipe key and a placeholder of its value, such as `data.sft.file=FILE`.
        key: &'static str,
    },
    /// A recipe key has a value that the run cannot use.
    #[error("`{key}` = {value}: {problem}")]
    Setting {
        /// The whole key.
        key: String,
        /// The value given.
        value: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// A file or folder cannot be used as it is.
    #[error("{}: {problem}", path.display())]
    Path {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The system cannot read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of a log is not a JSON object with a `step` or `rollout_step`.
    #[error("{}, line {line}: {source}; remove the line or start a new file", path.display())]
    LogLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser met.
        source: serde_json::Error,
    },
    /// A row of a log cannot be written as JSON.
    #[error("a row of a log cannot be written as JSON: {0}")]
    LogRow(#[source] serde_json::Error),
    /// A checkpoint is not as it was saved.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// `--resume` is asked to continue a run with another recipe.
    #[error(
        "`{key}` = {given}, but the run in {} has {saved}: that is another run. Give it a folder of its own with --set \
         output=DIR, or continue the old one with -c {}/recipe.toml", folder.display(), folder.display()
    )]
    OtherRecipe {
        /// The run's folder.
        folder: PathBuf,
        /// The key that differs.
        key: String,
        /// Its value now.
        given: String,
        /// Its value in the saved recipe.
        saved: String,
    },
    /// Training cannot continue; the state before the trouble is saved.
    #[error("{fault}. The state before these updates is saved in {}", folder.display())]
    Fault {
        /// Why it cannot continue.
        fault: Box<TrainError>,
        /// The checkpoint.
        folder: PathBuf,
    },
    /// A checkpoint cannot be written.
    #[error("the checkpoint could not be saved: {0}")]
    Save(Box<RunError>),
    /// An observer of the run failed.
    #[error(transparent)]
    Observer(Box<dyn std::error::Error + Send + Sync>),
    /// A recipe is wrong.
    #[error(transparent)]
    Recipe(#[from] crate::recipe::RecipeError),
    /// A recipe cannot be written as TOML.
    #[error("the recipe cannot be written as TOML: {0}")]
    RecipeText(#[from] toml::ser::Error),
    /// A device does not work.
    #[error(transparent)]
    Device(#[from] crate::device::DeviceError),
    /// Data cannot be read.
    #[error(transparent)]
    Data(#[from] fieldmark_data::DataError),
    /// A photograph or conversation cannot be processed.
    #[error(transparent)]
    Processor(#[from] fieldmark_processor::ProcessorError),
    /// A model cannot be read or written.
    #[error(transparent)]
    Model(#[from] fieldmark_model::ModelError),
    /// Decoding is not possible.
    #[error(transparent)]
    Generate(#[from] fieldmark_generate::GenerateError),
    /// Evaluation is not possible.
    #[error(transparent)]
    Eval(#[from] fieldmark_eval::EvalError),
    /// Training is not possible.
    #[error(transparent)]
    Train(TrainError),
}

impl From<TrainError> for RunError {
    /// An error that a run's own callback gave to the trainer comes back as itself.
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Callback(inner) => match inner.downcast::<Self>() {
                Ok(own) => *own,
                Err(other) => Self::Observer(other),
            },
            other => Self::Train(other),
        }
    }
}

impl RunError {
    /// Makes an [`Self::Io`] about `path`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Makes a [`Self::Path`].
    pub(crate) fn path(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Path { path: path.into(), problem: problem.into() }
    }

    /// Wraps an error of an observer's own.
    pub fn observer(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Observer(Box::new(error))
    }
}
