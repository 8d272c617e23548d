//! Errors from reading a checkpoint folder to running a forward pass.

use std::path::PathBuf;

/// An error of this crate. Its message names the file, tensor, key or sample at fault and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file or folder is not what is needed here.
    #[error("{path}: {problem}")]
    Refused {
        /// The file or folder.
        path: PathBuf,
        /// What it is and what to do.
        problem: String,
    },
    /// A JSON file does not have the expected content.
    #[error("{path}: not a valid {what}: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// The expected kind of file.
        what: &'static str,
        /// Where and why it is not valid.
        reason: String,
    },
    /// A configuration does not describe a supported network.
    #[error("config: `{key}` {reason}")]
    Config {
        /// The key in `config.json`.
        key: String,
        /// What is wrong with its value.
        reason: String,
    },
    /// A weights file is damaged, or could not be written.
    #[error("{path}: not a readable safetensors file: {reason}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// The error of the safetensors library.
        reason: String,
    },
    /// The checkpoint lacks tensors that the configuration requires.
    #[error(
        "{path}: {count} tensors are missing, first `{first}`; the checkpoint is incomplete, or config.json belongs to another model"
    )]
    MissingTensors {
        /// The checkpoint folder.
        path: PathBuf,
        /// The name of the first missing tensor.
        first: String,
        /// The number of missing tensors.
        count: usize,
    },
    /// The checkpoint has tensors that do not belong to the configured model.
    #[error(
        "{path}: {count} tensors have no place in this model, first `{first}`; config.json belongs to another model"
    )]
    UnknownTensors {
        /// The checkpoint folder.
        path: PathBuf,
        /// The name of the first such tensor.
        first: String,
        /// The number of such tensors.
        count: usize,
    },
    /// The weights are quantised.
    #[error(
        "{path}: the weights are quantised ({method}: tensor `{name}` is stored as {dtype}); use the model that is not \
         quantised, in f32, f16 or bf16"
    )]
    Quantised {
        /// The file.
        path: PathBuf,
        /// How, as far as the tensors tell, such as `GPTQ or AWQ`.
        method: &'static str,
        /// The name of a tensor that shows it.
        name: String,
        /// Its type in the file.
        dtype: String,
    },
    /// Two tensors of the checkpoint belong to the same parameter.
    #[error("{path}: tensor `{name}` is the same parameter as {other}; remove one of them")]
    DuplicateTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
        /// The other tensor's name and file.
        other: String,
    },
    /// The shape of a tensor does not match the configuration.
    #[error(
        "{path}: tensor `{name}` has shape {found:?}, but config.json implies {expected:?}; check that both belong to the same model"
    )]
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
    /// A tensor is stored in an unsupported type.
    #[error("{path}: tensor `{name}` is stored as {dtype}, but weights must be f32, f16 or bf16")]
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
        "{path}: tensor `{name}` holds a value that is not finite (first at element {index}); the checkpoint is damaged"
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Flat index of the first such value.
        index: usize,
    },
    /// A folder or file is not an adapter that can be read.
    #[error("{path}: {reason}")]
    AdapterFolder {
        /// The folder or file.
        path: PathBuf,
        /// What it is instead, and what to do.
        reason: String,
    },
    /// A setting in `adapter_config.json` cannot be used.
    #[error("{path}: `{key}` {reason}")]
    AdapterSetting {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value, what is wrong with it, and what to do.
        reason: String,
    },
    /// A tensor of an adapter does not fit the base model or the adapter's configuration.
    #[error("{path}: tensor `{name}` {reason}")]
    AdapterTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        name: String,
        /// What does not fit.
        reason: String,
    },
    /// A name is not the name of a number format.
    #[error("`{name}` is not a number format; use f32, f16 or bf16")]
    WeightType {
        /// The unknown name.
        name: String,
    },
    /// Adapters with these settings are impossible.
    #[error("lora: {reason}")]
    Lora {
        /// What is wrong with the settings.
        reason: String,
    },
    /// The image tokens of a text do not match its images.
    #[error("{sample}: {reason}")]
    Placeholders {
        /// The sample, such as `sample 0`.
        sample: String,
        /// What does not match.
        reason: String,
    },
    /// A row cannot continue the row that it names.
    #[error(
        "row {row} cannot continue row {before}: only in a packed batch may a row continue another, which must be an earlier \
         row that continues none"
    )]
    Continuation {
        /// The row, from 0.
        row: usize,
        /// The row that it would continue.
        before: usize,
    },
}

impl ModelError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn adapter_setting(path: PathBuf, key: &str, value: impl std::fmt::Display, reason: &str) -> Self {
        Self::AdapterSetting { path, key: key.into(), reason: format!("= {value} {reason}") }
    }

    pub(crate) fn refused(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Refused { path: path.into(), problem: problem.into() }
    }

    /// Names the `config.json` of an [`Self::Config`].
    pub(crate) fn in_file(self, path: &std::path::Path) -> Self {
        match self {
            Self::Config { key, reason } => {
                Self::Json { path: path.into(), what: "Qwen2.5-VL configuration", reason: format!("`{key}` {reason}") }
            }
            other => other,
        }
    }

    pub(crate) fn config(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { key: key.into(), reason: reason.into() }
    }
}
