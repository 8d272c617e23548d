//! The whole recipe: `seed`, `output`, `device` and the sections.

use std::path::PathBuf;

use fieldmark_model::LoraSettings;
use fieldmark_train::{sft::SftConfig, tapo::TapoConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{data::DataSection, eval::EvalSection, model::ModelSection, run::RunSection};

/// All settings of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Seed of every random number in the run.
    pub seed: u64,
    /// Folder that the run writes to.
    pub output: Option<PathBuf>,
    /// Device to run on, such as "cuda:0"; `--device` takes precedence. sft and tapo accept several, "cuda:0,cuda:1":
    /// every update and all rollouts are spread over them (see `run.reduction`), and the first holds the optimiser's state.
    pub device: Option<String>,
    /// Checkpoint that the run starts from.
    pub model: ModelSection,
    /// Low-rank adapters to train instead of the weights.
    pub lora: LoraSettings,
    /// Data of all stages.
    pub data: DataSection,
    /// Checkpoints and logs that SFT and TAPO write while they run.
    pub run: RunSection,
    /// Supervised fine-tuning (stage 1).
    pub sft: SftConfig,
    /// Triplet-augmented policy optimisation (stage 2).
    pub tapo: TapoConfig,
    /// Evaluation.
    pub eval: EvalSection,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            seed: 42,
            output: None,
            device: None,
            model: ModelSection::default(),
            lora: LoraSettings::default(),
            data: DataSection::default(),
            run: RunSection::default(),
            sft: SftConfig::default(),
            tapo: TapoConfig::default(),
            eval: EvalSection::default(),
        }
    }
}
