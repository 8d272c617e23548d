//! What can stop a demo.

use std::path::PathBuf;

/// Every error names the file or sample it is about.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file could not be written.
    #[error("{path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A sample contradicts itself.
    #[error("{sample}: {reason}")]
    Sample {
        /// Which photograph or row.
        sample: String,
        /// How.
        reason: &'static str,
    },
    /// The labels or photographs could not be read.
    #[error(transparent)]
    Data(#[from] fieldmark_data::DataError),
    /// A photograph or conversation could not be processed.
    #[error(transparent)]
    Processor(#[from] fieldmark_processor::ProcessorError),
    /// The model could not be built or saved.
    #[error(transparent)]
    Model(#[from] fieldmark_model::ModelError),
    /// Training stopped.
    #[error(transparent)]
    Train(#[from] fieldmark_train::TrainError),
    /// Evaluation stopped.
    #[error(transparent)]
    Eval(#[from] fieldmark_eval::EvalError),
}

impl DemoError {
    pub(super) fn write(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }
}
