//! Recipes: one TOML file says what `fieldmark sft`, `tapo` and `eval` do. Defaults of `[sft]` and `[tapo]` are those of
//! Fine-R1 on the 3B model (arXiv 2602.07605, section 4 and its released scripts, the deviations named at each setting).
//!
//! `[model]` and `[data]` stand beside `[eval]`; `seed`, `output` and `device` above all. Reading and overrides are in
//! `read.rs`, the JSON schema in `schema.rs`. Paths are relative to the folder in which the command runs.

mod data;
mod difference;
mod read;
mod schema;
mod show;

use std::path::PathBuf;

use burn::tensor::FloatDType;
use fieldmark_data::PromptTemplate;
use fieldmark_eval::World;
use fieldmark_model::LoraSettings;
use fieldmark_train::{parallel::Reduction, sft::SftConfig, tapo::TapoConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use data::{AlphaRule, DataSection, Exif, ImageSizes, ResizeRule, SftData, TapoData};
pub use difference::Difference;
pub use read::{LayeredRecipe, Origin, RecipeError};

/// Everything that a run is made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Decides every random number of the run.
    pub seed: u64,
    /// Folder for what the run leaves behind.
    pub output: Option<PathBuf>,
    /// Device to run on, as `--device` has it; the command line wins. sft and tapo take several, `cuda:0,cuda:1`: every
    /// update and all rollouts are spread over them (`run.reduction`), the first holds the optimiser's state.
    pub device: Option<String>,
    /// The checkpoint.
    pub model: ModelSection,
    /// Adapters to train instead of the weights.
    pub lora: LoraSettings,
    /// The data of all stages.
    pub data: DataSection,
    /// What SFT and TAPO leave behind while they run.
    pub run: RunSection,
    /// Supervised fine-tuning.
    pub sft: SftConfig,
    /// TAPO.
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

/// The number format of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with five of exponent.
    F16,
    /// 16 bits with eight of exponent: the type of the published checkpoints.
    Bf16,
}

impl WeightType {
    /// Burn's name of it.
    pub fn float_dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }
}

/// The checkpoint that a run starts from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSection {
    /// Checkpoint folder: `config.json`, weights, tokenizer, processor.
    pub path: Option<PathBuf>,
    /// Checkpoint folder of SigLIP (the paper's: google/siglip-base-patch16-256), of which the text tower is read: `config.json`,
    /// weights, `tokenizer.json`. Needed where `tapo.rewards` has `semantic`, the cosine of answer and truth. It is computed
    /// in f32 on the model's first device.
    pub text_encoder: Option<PathBuf>,
    /// Number format to compute in. The device must know it: `fieldmark devices` says. Training takes f32, and bf16 with
    /// `adamw.half` "master" or "kahan": an update of 1e-6 is lost in the rounding of a 16-bit weight alone.
    pub dtype: WeightType,
    /// Number formats of single parts where they differ from `dtype`.
    pub parts: PartsSection,
    /// Number format of the checkpoint that a run writes.
    pub stored: WeightType,
}

/// What SFT and TAPO leave behind while they run: checkpoints that `--resume` continues from, and curves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunSection {
    /// Save after every so many updates (SFT) or rollout steps (TAPO), and where SFT's validation loss is the lowest yet. 0
    /// saves the finished model only.
    pub save_every: usize,
    /// Newest checkpoints to keep; the best one is kept beside them.
    pub keep: usize,
    /// Write what is measured for TensorBoard too, into `tensorboard` of the output folder.
    pub tensorboard: bool,
    /// Show the run on Burn's dashboard where there is a terminal for it; without it progress has one line.
    pub dashboard: bool,
    /// The device's peak in 10¹² operations a second, of matrix products in the type that the model is computed in: then the
    /// share of it that a run makes use of (MFU) is measured. Of NVIDIA's data sheets, dense: A100 312 in bf16 and 156 in
    /// TF32, H100 and H200 (SXM) 989 and 495.
    pub peak_tflops: Option<f64>,
    /// How the gradients of several devices are added up. "all_reduce" is for CUDA cards, with NCCL installed; other devices
    /// gather in any case.
    pub reduction: Reduction,
}

impl Default for RunSection {
    fn default() -> Self {
        Self {
            save_every: 5,
            keep: 3,
            tensorboard: true,
            dashboard: true,
            peak_tflops: None,
            reduction: Reduction::AllReduce,
        }
    }
}

/// Number formats of the parts of a model; `dtype` where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PartsSection {
    /// Patch embedding and blocks of the vision encoder.
    pub vision: Option<WeightType>,
    /// The merger between encoder and decoder.
    pub projector: Option<WeightType>,
    /// Embedding, blocks, norm and head.
    pub decoder: Option<WeightType>,
}

/// The order in which options are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Shuffled by `eval.option_seed`.
    #[default]
    Shuffled,
    /// As in the file: in the released files the truth is always first.
    Released,
    /// Every rotation of the shuffled order; a question counts with its mean.
    Rotations,
}

/// Evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvalSection {
    /// Files of evaluation rows named `<dataset>_seen.jsonl` or `<dataset>_unseen.jsonl` (`.gz` too), or folders of them.
    /// Without one, questions are made from the test photographs of `data.labels`.
    pub files: Vec<PathBuf>,
    /// Closed world, open world, or both.
    pub worlds: Vec<World>,
    /// The order of the options.
    pub order: Order,
    /// Seed of the options' order.
    pub option_seed: u64,
    /// Options of a question made from `data.labels`, the truth among them.
    pub options: usize,
    /// Wording of the closed world's prompt.
    pub closed_prompt: PromptTemplate,
    /// Wording of the open world's prompt.
    pub open_prompt: PromptTemplate,
    /// Super-categories guessed from image paths, as released ("object" for birds, dogs and pets).
    pub released_super_category: bool,
    /// Smallest images in pixels; without it, the checkpoint's limit.
    pub min_pixels: Option<usize>,
    /// Largest images in pixels; without it, the checkpoint's limit.
    pub max_pixels: Option<usize>,
    /// 0 is greedy.
    pub temperature: f64,
    /// Nucleus of the sampler.
    pub top_p: f64,
    /// Most likely tokens that the sampler keeps; 0 keeps all.
    pub top_k: usize,
    /// Applied to tokens already there, the prompt's included; 1 is none. The released evaluation had 1.05.
    pub repetition_penalty: f64,
    /// Most tokens of an answer.
    pub max_new_tokens: usize,
    /// Questions answered side by side.
    pub batch: usize,
    /// Questions of each file and world, evenly spread; without it, all.
    pub limit: Option<usize>,
}

impl Default for EvalSection {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            worlds: World::ALL.to_vec(),
            order: Order::Shuffled,
            option_seed: 42,
            options: 4,
            closed_prompt: PromptTemplate::EvalClosed,
            open_prompt: PromptTemplate::EvalOpen,
            released_super_category: false,
            min_pixels: None,
            max_pixels: None,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            repetition_penalty: 1.0,
            max_new_tokens: 2048,
            batch: 8,
            limit: None,
        }
    }
}
