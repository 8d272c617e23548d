//! The errors that stop a run. Each names the file, row or recipe key at fault and says what to do.

use std::{io, path::PathBuf};

use fieldmark_train::TrainError;

/// The errors of runs, their folders, logs and sources.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A recipe key that the run needs is not set.
    #[error("no {what} given; add --set {key}")]
    Missing {
        /// What is missing, such as `model`.
        what: &'static str,
        /// The recipe key with a placeholder for its value, such as `data.sft.file=FILE`.
        key: &'static str,
    },
    /// A recipe key has a value that the run cannot use.
    #[error("`{key}` = {value}: {problem}")]
    Setting {
        /// The full key.
        key: String,
        /// Its value.
        value: String,
        /// What is wrong and which values are allowed.
        problem: String,
    },
    /// A file or folder cannot be used.
    #[error("{}: {problem}", path.display())]
    Path {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A line of a log is not a JSON object with a `step` or `rollout_step`.
    #[error("{}, line {line}: {source}; remove this line, or remove the file to start a new one", path.display())]
    LogLine {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: usize,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// A log row cannot be written as JSON.
    #[error("a log row cannot be written as JSON: {0}")]
    LogRow(#[source] serde_json::Error),
    /// A checkpoint changed after it was saved, or is incomplete.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The folder of the checkpoint.
        path: PathBuf,
        /// Which file is missing or wrong.
        reason: String,
    },
    /// `--resume` was called with a recipe that differs from the run's.
    #[error(
        "`{key}` = {given}, but the run in {} has {saved}. To resume it, use its recipe: -c {}/{file}. To start a new \
         run, choose another folder with --set output=DIR", folder.display(), folder.display()
    )]
    OtherRecipe {
        /// The folder of the run.
        folder: PathBuf,
        /// The name of the recipe in it.
        file: &'static str,
        /// The key that differs.
        key: String,
        /// Its value in the new recipe.
        given: String,
        /// Its value in the saved recipe.
        saved: String,
    },
    /// Training cannot continue. The last good state is saved.
    #[error("{fault}. The last good state is saved in {}", folder.display())]
    Fault {
        /// Why training cannot continue.
        fault: Box<TrainError>,
        /// The folder of the checkpoint.
        folder: PathBuf,
    },
    /// A checkpoint cannot be written.
    #[error("the checkpoint could not be saved: {0}")]
    Save(Box<RunError>),
    /// The observer of the run returned an error.
    #[error(transparent)]
    Observer(Box<dyn std::error::Error + Send + Sync>),
    /// A recipe is wrong.
    #[error(transparent)]
    Recipe(#[from] crate::recipe::RecipeError),
    /// A recipe cannot be written as TOML.
    #[error("the recipe cannot be written as TOML: {0}")]
    RecipeText(#[from] toml::ser::Error),
    /// A device cannot be used.
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
    /// Responses cannot be generated.
    #[error(transparent)]
    Generate(#[from] fieldmark_generate::GenerateError),
    /// A model cannot be evaluated.
    #[error(transparent)]
    Eval(#[from] fieldmark_eval::EvalError),
    /// A world cannot be made or written.
    #[error(transparent)]
    World(#[from] fieldmark_world::WorldError),
    /// A model cannot be trained.
    #[error(transparent)]
    Train(TrainError),
}

impl From<TrainError> for RunError {
    /// Unwraps an error that a callback of the run passed through the trainer.
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
    /// Creates an [`Self::Io`] for `path`.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Creates a [`Self::Path`].
    pub(crate) fn path(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Path { path: path.into(), problem: problem.into() }
    }

    /// Wraps the error of an [`Observer`](crate::run::Observer).
    pub fn observer(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Observer(Box::new(error))
    }
}
