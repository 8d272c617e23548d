//! `[model]`: the checkpoint that a run starts from, and its number formats.

use std::path::{Path, PathBuf};

use fieldmark_model::{Adapter, PartTypes, WeightType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The checkpoint that a run starts from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSection {
    /// Checkpoint folder with `config.json`, weights, tokenizer and processor configuration.
    pub path: Option<PathBuf>,
    /// Folder of a LoRA adapter of the checkpoint, as PEFT saves it (`adapter_config.json` and
    /// `adapter_model.safetensors`), or of a run of Fieldmark that trained one. `ask` and `eval` merge it into the
    /// weights. Training with `lora.rank` = 0 merges it too, then trains the weights; with another rank, training goes
    /// on with the adapter itself, which must have this `lora.rank` and `lora.alpha`.
    pub adapter: Option<PathBuf>,
    /// Checkpoint folder of SigLIP with `config.json`, weights and `tokenizer.json`; the paper uses
    /// google/siglip-base-patch16-256. Needed if `tapo.rewards` contains `semantic`, the cosine similarity of answer and
    /// ground truth. Only the text tower is read; it computes in f32 on the first device.
    pub text_encoder: Option<PathBuf>,
    /// Number format to compute in. The device must support it: see `fieldmark devices`. Training needs f32, or bf16
    /// with `adamw.half` set to "master" or "kahan": an update of 1e-6 is lost when a 16-bit weight is rounded.
    pub dtype: WeightType,
    /// Number formats of single parts of the model. A part that is not listed uses `dtype`.
    pub parts: PartTypes,
    /// Number format of the checkpoints that a run writes.
    pub stored: WeightType,
}

impl ModelSection {
    /// Returns the folder of the adapter; an empty path is none.
    pub fn adapter_folder(&self) -> Option<&Path> {
        self.adapter.as_deref().filter(|path| !path.as_os_str().is_empty())
    }

    /// Returns the files of the adapter. A folder without a whole adapter has none; [`Checkpoint::open`] says why.
    ///
    /// [`Checkpoint::open`]: crate::Checkpoint::open
    pub fn adapter_files(&self) -> Vec<PathBuf> {
        let adapter = self.adapter_folder().and_then(|folder| Adapter::open(folder).ok());
        adapter.map(|adapter| adapter.files().to_vec()).unwrap_or_default()
    }
}
