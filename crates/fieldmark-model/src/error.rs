//! What can go wrong between a checkpoint folder and a forward pass.

use std::path::PathBuf;

/// Every error names the file, tensor, key or sample it is about and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not the JSON that it should be.
    #[error("{path}: not a valid {what}: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What was expected there.
        what: &'static str,
        /// Where and why.
        reason: String,
    },
    /// A configuration describes no network that exists.
    #[error("config: `{key}` {reason}")]
    Config {
        /// The key in `config.json`.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// A weights file is damaged.
    #[error("{path}: not a readable safetensors file: {reason}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        reason: String,
    },
    /// The checkpoint lacks tensors that the configuration calls for.
    #[error(
        "{path}: {count} tensors are missing, first `{first}`: the checkpoint is incomplete or config.json describes another model"
    )]
    MissingTensors {
        /// The checkpoint folder.
        path: PathBuf,
        /// The first missing name.
        first: String,
        /// How many are missing.
        count: usize,
    },
    /// The checkpoint holds tensors that the configuration has no place for.
    #[error(
        "{path}: {count} tensors have no place in this model, first `{first}`: config.json describes another model"
    )]
    UnknownTensors {
        /// The checkpoint folder.
        path: PathBuf,
        /// The first such name.
        first: String,
        /// How many there are.
        count: usize,
    },
    /// Two tensors of the checkpoint are the same parameter.
    #[error("{path}: tensor `{name}` is the same parameter as {other}: remove one of the two")]
    DuplicateTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name there.
        name: String,
        /// The name met before, and its file.
        other: String,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("{path}: tensor `{name}` has shape {found:?}, but config.json implies {expected:?}")]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that the configuration implies.
        expected: Vec<usize>,
    },
    /// A tensor is stored in a type that is no float.
    #[error("{path}: tensor `{name}` is stored as {dtype}: only f32, f16 and bf16 weights are read")]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Its type in the file.
        dtype: String,
    },
    /// A weight is NaN or infinite.
    #[error(
        "{path}: tensor `{name}` holds a value that is not finite (first at element {index}): the checkpoint is damaged"
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Flat index of the first such value.
        index: usize,
    },
    /// A number format that does not exist.
    #[error("`{name}` is not a number format; choose f32, f16 or bf16")]
    WeightType {
        /// The name given.
        name: String,
    },
    /// Adapters that cannot be made.
    #[error("lora: {reason}")]
    Lora {
        /// What is wrong.
        reason: String,
    },
    /// Image placeholders in the text and the images given do not agree.
    #[error("{sample}: {reason}")]
    Placeholders {
        /// Which sample.
        sample: String,
        /// How they disagree.
        reason: String,
    },
}

impl ModelError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn config(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { key: key.into(), reason: reason.into() }
    }
}
