//! Recipes: one TOML file says what `fieldmark sft`, `tapo` and `eval` do. Defaults of `[sft]` and `[tapo]` are those of
//! Fine-R1 on the 3B model (arXiv 2602.07605, section 4 and its released scripts, the deviations named at each setting).
//!
//! `[model]` and `[data]` stand beside `[eval]`; `seed`, `output` and `device` above all. Reading and overrides are in
//! `read.rs`, the JSON schema in `schema.rs`. Paths are relative to the folder in which the command runs.

mod difference;
mod read;
mod schema;
mod show;

use std::{collections::BTreeMap, path::PathBuf};

use burn::tensor::FloatDType;
use fieldmark_data::{ImageRoots, PromptTemplate};
use fieldmark_eval::World;
use fieldmark_model::LoraSettings;
use fieldmark_processor::{Alpha, DecodeOptions, ExifOrientation, PixelLimits, PreResize};
use fieldmark_train::{Reduction, SftConfig, TapoConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// The data of all stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataSection {
    /// Folder that image paths are relative to; without it, the folder of the file that names them.
    pub images: Option<PathBuf>,
    /// Image paths that begin with one of these folders lie in the folder given instead.
    pub prefixes: BTreeMap<String, PathBuf>,
    /// What to do with the orientation that a camera noted.
    pub exif: Exif,
    /// What to do with transparency.
    pub alpha: AlphaRule,
    /// Make every sample once before training, so that a damaged image or a sample that is too long ends the run in its
    /// first minutes and not in its last.
    pub check: bool,
    /// A folder of labelled photographs (`labels.csv`) from which triplets and evaluation questions are made where no
    /// file of them is given.
    pub labels: Option<PathBuf>,
    /// Classes of that folder, drawn by `seed`, that training never sees.
    pub unseen: usize,
    /// The question asked about photographs of that folder.
    pub question: String,
    /// What SFT reads.
    pub sft: SftData,
    /// What TAPO reads.
    pub tapo: TapoData,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            images: None,
            prefixes: BTreeMap::new(),
            exif: Exif::Honour,
            alpha: AlphaRule::Drop,
            check: true,
            labels: None,
            unseen: 0,
            question: "What is in this photograph?".into(),
            sft: SftData::default(),
            tapo: TapoData::default(),
        }
    }
}

impl DataSection {
    /// How photographs are decoded.
    pub fn decode(&self) -> DecodeOptions {
        DecodeOptions {
            exif: match self.exif {
                Exif::Honour => ExifOrientation::Honour,
                Exif::Ignore => ExifOrientation::Ignore,
            },
            alpha: match self.alpha {
                AlphaRule::Drop => Alpha::Drop,
                AlphaRule::White => Alpha::White,
            },
            ..DecodeOptions::default()
        }
    }

    /// Where the images that `file` names lie.
    pub fn roots(&self, file: &std::path::Path) -> ImageRoots {
        let roots = self.images.as_ref().map_or_else(|| ImageRoots::beside(file), ImageRoots::new);
        self.prefixes.iter().fold(roots, |roots, (prefix, folder)| roots.with_prefix(prefix, folder))
    }
}

/// What to do with the orientation that a camera noted in a photograph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Exif {
    /// Turn the picture upright.
    #[default]
    Honour,
    /// Leave the pixels as stored, as the reference does.
    Ignore,
}

/// What to do with transparency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlphaRule {
    /// Keep the colours as stored, as in training.
    #[default]
    Drop,
    /// Composite onto white, as recent reference processors do.
    White,
}

/// The sizes to which a stage brings its images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSizes {
    /// Smaller images are enlarged to about this many pixels.
    pub min_pixels: usize,
    /// Larger images are reduced to about this many pixels.
    pub max_pixels: usize,
    /// Whether a training loader's own resize comes before the processor's; the limits are then those of the first, and
    /// the second has the checkpoint's.
    pub resize: ResizeRule,
}

/// The resize of a training data loader before the processor's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResizeRule {
    /// None: the processor's resize alone.
    Once,
    /// By area, as EasyR1 does for TAPO.
    Area,
    /// By area, then sides of at least 28 and no extreme shape, as LLaMA-Factory does for SFT.
    AreaThenSides,
}

impl ImageSizes {
    /// The two resizes: the one before, and the processor's own limits (`None`: the checkpoint's).
    pub fn steps(&self) -> (Option<PreResize>, Option<PixelLimits>) {
        let limits = PixelLimits { min_pixels: self.min_pixels, max_pixels: self.max_pixels };
        match self.resize {
            ResizeRule::Once => (None, Some(limits)),
            ResizeRule::Area => (Some(PreResize::Area(limits)), None),
            ResizeRule::AreaThenSides => (Some(PreResize::AreaThenSides(limits)), None),
        }
    }
}

/// What SFT reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SftData {
    /// Conversations, ShareGPT-style JSON as LLaMA-Factory reads it.
    pub file: Option<PathBuf>,
    /// Conversations whose loss is measured and from which nothing is learned, in a file of the same form.
    pub validation: Option<PathBuf>,
    /// The same with so many rows of `data.sft.file`, drawn by `seed`, that training then does not see.
    pub validation_rows: usize,
    /// Longest conversation in tokens, images included. A longer one is refused, never cut.
    pub max_tokens: usize,
    /// Whether the newline after an answer's end token is in the loss, as released.
    pub newline_in_loss: bool,
    /// Sizes of the images.
    pub sizes: ImageSizes,
}

impl Default for SftData {
    fn default() -> Self {
        let PixelLimits { min_pixels, max_pixels } = PixelLimits::SFT;
        let sizes = ImageSizes { min_pixels, max_pixels, resize: ResizeRule::AreaThenSides };
        Self { file: None, validation: None, validation_rows: 0, max_tokens: 4096, newline_in_loss: false, sizes }
    }
}

/// What TAPO reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TapoData {
    /// Triplets: rows with problem, answer, anchor, positive and negative. Without it, they are made from `data.labels`.
    pub file: Option<PathBuf>,
    /// Rows whose questions are answered greedily and from which nothing is learned, in a file of the same form. Their anchors
    /// alone are looked at.
    pub validation: Option<PathBuf>,
    /// The same with so many rows of the triplets, drawn by `seed`, that training then does not see.
    pub validation_rows: usize,
    /// The wording of the prompt.
    pub prompt: PromptTemplate,
    /// Longest prompt in tokens, its image included. A longer one is refused.
    pub max_tokens: usize,
    /// Whether a class with a single photograph may use it as its own positive; else such a class is an error.
    pub reuse_anchor: bool,
    /// Sizes of the images.
    pub sizes: ImageSizes,
}

impl Default for TapoData {
    fn default() -> Self {
        let PixelLimits { min_pixels, max_pixels } = PixelLimits::TAPO;
        let sizes = ImageSizes { min_pixels, max_pixels, resize: ResizeRule::Area };
        Self {
            file: None,
            validation: None,
            validation_rows: 0,
            prompt: PromptTemplate::Rl,
            max_tokens: 4096,
            reuse_anchor: false,
            sizes,
        }
    }
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
