//! A checkpoint folder that is opened but not loaded: the configuration is read, the weights are known to be of a kind
//! that can be read, and parts that contradict each other are resolved as transformers does.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::folder::checkpoint_folder;
use crate::{
    config::Qwen25VlConfig,
    error::ModelError,
    model::Qwen25Vl,
    reading,
    weights::{CheckpointMap, LoadOptions, PublishedTensors, two_forms},
};

/// A checkpoint folder before its weights are loaded.
///
/// ```no_run
/// use burn::tensor::Device;
/// use fieldmark_model::{LoadOptions, Pretrained};
///
/// let checkpoint = Pretrained::open("runs/sft".as_ref())?;
/// for note in checkpoint.notes.iter().chain(&checkpoint.contradictions) {
///     eprintln!("{note}");
/// }
/// let model = checkpoint.load(LoadOptions::default(), &Device::default())?;
/// # Ok::<(), fieldmark_model::ModelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Pretrained {
    /// The folder with `config.json` and the weights.
    pub folder: PathBuf,
    /// The configuration, as far as the weights bear it out: a head that is stored and differs from the embedding is not
    /// tied, whatever `config.json` says.
    pub config: Qwen25VlConfig,
    /// What is read instead of what the path says, such as the checkpoint in the folder of a run.
    pub notes: Vec<String>,
    /// Parts of the folder that contradict each other, and which of them counts.
    pub contradictions: Vec<String>,
}

impl Pretrained {
    /// Opens a checkpoint folder, or the finished checkpoint in the folder of a run. The weights are mapped, not loaded.
    ///
    /// # Errors
    /// Returns an error that says what the folder is and what to do if it is no checkpoint of Qwen2.5-VL, if a file is
    /// missing, or if the weights are of a kind that is not read.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let (folder, note) = checkpoint_folder(path)?;
        let file = folder.join("config.json");
        let json = reading::json(&file, "configuration")?;
        let mut config = Qwen25VlConfig::from_json(&json).map_err(|error| error.in_file(&file))?;
        let inside =
            Qwen25VlConfig::contradictions(&json).into_iter().map(|text| format!("{}: {text}", file.display()));
        let mut contradictions: Vec<String> = two_forms(&folder).into_iter().chain(inside).collect();
        let weights = CheckpointMap::open(&folder)?;
        let tensors = PublishedTensors::of(&weights)?;
        if config.tie_word_embeddings && tensors.has_other_head() {
            config.tie_word_embeddings = false;
            contradictions.push(format!(
                "{}: `tie_word_embeddings` is true, but lm_head.weight is stored and differs from the embedding; the stored \
                 head is used, as transformers does",
                file.display()
            ));
        }
        let mut notes: Vec<String> = note.into_iter().collect();
        if folder.join("adapter_config.json").is_file() {
            notes.push(format!(
                "{}: the adapter beside the weights is not used; move its two files to a folder of their own, and give that as \
                 the adapter",
                folder.display()
            ));
        }
        Ok(Self { folder, config, notes, contradictions })
    }

    /// Loads the weights onto `device`.
    ///
    /// # Errors
    /// Returns an error if the weights are damaged or do not match the configuration.
    pub fn load(&self, options: LoadOptions, device: &Device) -> Result<Qwen25Vl, ModelError> {
        self.config.init(device).load_weights(&self.folder, options)
    }
}

impl Qwen25Vl {
    /// Reads a checkpoint folder: [`Pretrained::open`], then [`Pretrained::load`].
    ///
    /// # Errors
    /// Returns the errors of both.
    pub fn from_pretrained(folder: &Path, options: LoadOptions, device: &Device) -> Result<Self, ModelError> {
        Pretrained::open(folder)?.load(options, device)
    }
}
