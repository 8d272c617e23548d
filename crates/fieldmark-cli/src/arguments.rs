//! The command line: verbs and their options. The longer help texts are in `help.rs`.

use std::{error::Error, path::PathBuf, str::FromStr};

use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use fieldmark::{Stage, data::PromptTemplate, model::WeightType, processor::DecodeOptions};

use crate::{bytes::Bytes, help};

mod worlds;

pub use self::worlds::{BaseArgs, DemoArgs, WorldArgs};

/// Fine-R1 in Rust: a vision-language model that learns to tell look-alikes apart by reasoning.
#[derive(Debug, Parser)]
#[command(name = "fieldmark", version, after_help = help::OVERVIEW, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the method work: SFT and TAPO in a small world of look-alikes, scored on seen and unseen species.
    #[command(after_help = help::demo())]
    Demo(DemoArgs),
    /// Write a world of look-alikes as files: pictures, rows for both training stages, evaluation questions.
    #[command(after_help = help::WORLD)]
    World(WorldArgs),
    /// Train the base model of a world from nothing: the model that the demo starts from.
    #[command(after_help = help::BASE)]
    Base(BaseArgs),
    /// Make a checkpoint from nothing: random weights of a given shape and a tokenizer trained on your texts.
    #[command(after_help = help::INIT)]
    Init(InitArgs),
    /// Fine-tune a checkpoint on conversations with reasoning (stage 1: supervised fine-tuning).
    #[command(after_help = help::sft())]
    Sft(RunArgs),
    /// Train a checkpoint on image triplets by reinforcement learning (stage 2: triplet-augmented policy optimisation).
    #[command(after_help = help::tapo())]
    Tapo(RunArgs),
    /// Ask a checkpoint the evaluation questions, in the closed and the open world, and score its answers.
    #[command(after_help = help::eval())]
    Eval(EvalArgs),
    /// Ask a checkpoint about photographs; the answer is printed as it is decoded.
    #[command(after_help = help::ASK)]
    Ask(AskArgs),
    /// Print what the prompt templates say.
    #[command(after_help = help::PROMPT)]
    Prompt(PromptArgs),
    /// Print a whole recipe, with the origin of every value.
    #[command(after_help = help::show())]
    Show(ShowArgs),
    /// Print the memory that a recipe needs on a device, without loading anything.
    #[command(after_help = help::PLAN)]
    Plan(PlanArgs),
    /// Check data files.
    #[command(subcommand)]
    Data(DataCommand),
    /// List the devices that this build can run on, and check that each computes correctly.
    #[command(after_help = help::DEVICES)]
    Devices,
    /// Compare every tensor of a reference folder with ours.
    #[command(after_help = help::PARITY)]
    Parity(ParityArgs),
}

/// The arguments of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// TOML file with the shape of the model [default: the shape in recipes/shapes/tiny.toml].
    #[arg(long, value_name = "FILE")]
    pub shape: Option<PathBuf>,
    /// Texts that the tokenizer is trained on, one a line.
    #[arg(long, value_name = "FILE")]
    pub corpus: PathBuf,
    /// Folder for the checkpoint; it must be empty or not exist.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Seed of the random weights.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Refuse a shape with more parameters before any memory is taken.
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000)]
    pub max_parameters: u64,
}

/// The recipe, for every command that reads one.
#[derive(Debug, Args)]
pub struct RecipeArgs {
    /// Recipe file; may be repeated, and each file overrides the ones before it.
    #[arg(short, long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Override one key of the recipe; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// The arguments of `sft` and `tapo`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// LoRA adapter of the model, as PEFT saves it, or a run that trained one; the same as --set model.adapter=DIR.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Write to the output folder even if it is not empty.
    #[arg(long)]
    pub overwrite: bool,
    /// Continue the run in the output folder from its newest intact checkpoint, or start it if there is none.
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// The arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// LoRA adapter of the model, as PEFT saves it, or a run that trained one; the same as --set model.adapter=DIR.
    #[arg(long, value_name = "DIR", conflicts_with = "score_only")]
    pub adapter: Option<PathBuf>,
    /// Write to the output folder even if it is not empty.
    #[arg(long)]
    pub overwrite: bool,
    /// Go on with the evaluation in the output folder: ask what has no answer yet, and what could not be asked.
    #[arg(long, conflicts_with_all = ["overwrite", "score_only"])]
    pub resume: bool,
    /// Ask at most N rows of each file, evenly spread.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Write predictions.jsonl without scoring it.
    #[arg(long, conflicts_with = "score_only")]
    pub predict_only: bool,
    /// Score an existing predictions file; needs no model and no recipe. Other names of classes: --set data.aliases=FILE.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub score_only: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// The arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Print the JSON schema of recipes instead, for editors that complete and check TOML.
    #[arg(long, conflicts_with_all = ["config", "set"])]
    pub schema: bool,
}

/// The arguments of `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// The stage to plan.
    #[arg(long, value_parser = named::<Stage>(Stage::ALL.map(Stage::name)), default_value_t = Stage::Sft)]
    pub stage: Stage,
    /// Memory of the device, such as 80GB, 79GiB or 512MB.
    #[arg(long, value_name = "SIZE")]
    pub budget: Option<Bytes>,
    /// Tokens of the longest sequence, prompt and response together [default: the recipe's limits].
    #[arg(long, value_name = "N")]
    pub tokens: Option<usize>,
    /// The model's config.json [default: the one in the recipe's model.path].
    #[arg(long, value_name = "FILE")]
    pub model_config: Option<PathBuf>,
}

/// The arguments of `ask`.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Checkpoint folder: config.json, weights, tokenizer, processor.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// LoRA adapter of the model, as PEFT saves it, or a run that trained one.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// A photograph (JPEG, PNG or WebP): a file, or a file:// or data: URL. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// The question.
    pub question: String,
    /// System text that replaces the chat template's own.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Most tokens of the answer.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub max_new_tokens: usize,
    /// Sampling temperature; 0 always takes the most likely token.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f64,
    /// Sample from the most likely tokens that together have this probability.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f64,
    /// Values above 1 make tokens that already occurred less likely; 1 changes nothing.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub repetition_penalty: f64,
    /// Seed of the sampling.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Enlarge smaller photographs to about this many pixels [default: the checkpoint's].
    #[arg(long, value_name = "N")]
    pub min_pixels: Option<usize>,
    /// Reduce larger photographs to about this many pixels [default: the checkpoint's].
    #[arg(long, value_name = "N")]
    pub max_pixels: Option<usize>,
    #[command(flatten)]
    pub decode: DecodeArgs,
    /// Number format to compute in.
    #[arg(long, value_parser = named::<WeightType>(WeightType::ALL.map(WeightType::name)), default_value_t = WeightType::F32)]
    pub dtype: WeightType,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// The arguments of `prompt`.
#[derive(Debug, Args)]
pub struct PromptArgs {
    /// The template [default: all].
    #[arg(value_parser = named::<PromptTemplate>(PromptTemplate::ALL.map(PromptTemplate::name)))]
    pub template: Option<PromptTemplate>,
    /// The question.
    #[arg(long, value_name = "TEXT", default_value = "Which bird is this?")]
    pub question: String,
    /// The options of a closed question, with commas between them.
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub options: Vec<String>,
    /// Checkpoint folder whose chat template renders the prompt.
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
}

/// The verbs of `data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Read a whole data file and count its rows, images, classes and problems.
    #[command(after_help = help::CHECK)]
    Check(CheckArgs),
    /// Make closed questions from a model's own answers to open ones.
    #[command(after_help = help::OPTIONS)]
    Options(OptionsArgs),
}

/// The arguments of `data check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The data file.
    pub file: PathBuf,
    /// Folder that image paths are relative to [default: the file's own folder].
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
}

/// The arguments of `data options`.
#[derive(Debug, Args)]
pub struct OptionsArgs {
    /// The rollouts.jsonl of a run of TAPO.
    pub rollouts: PathBuf,
    /// The triplets that the run trained on: its data.tapo.file.
    #[arg(long, value_name = "FILE")]
    pub rows: PathBuf,
    /// The file to write, JSONL. It must not exist.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// Most options of a question, the right one included.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(2..=100))]
    pub options: u32,
    /// Seed of the order of the options, and of those that are drawn.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
}

/// The arguments of `parity`.
#[derive(Debug, Args)]
pub struct ParityArgs {
    /// Folder laid out like the reference fixtures.
    pub folder: PathBuf,
    /// tokenizer.json (or .json.gz) to compare the token ids of rendered chats.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Number format of the model's weights; in 16 bits the bounds are those of 16 bits.
    #[arg(long, value_parser = named::<WeightType>(WeightType::ALL.map(WeightType::name)), default_value_t = WeightType::F32)]
    pub dtype: WeightType,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// The limits of image files, for every command that reads photographs without a recipe.
#[derive(Debug, Args)]
pub struct DecodeArgs {
    /// Refuse a photograph with more pixels (width × height) before it is decoded.
    #[arg(long, value_name = "N", default_value_t = DecodeOptions::default().max_decoded_pixels)]
    pub max_decoded_pixels: u64,
    /// Refuse a photograph whose file has more bytes.
    #[arg(long, value_name = "N", default_value_t = DecodeOptions::default().max_file_bytes)]
    pub max_file_bytes: u64,
}

impl DecodeArgs {
    /// Returns how photographs are read.
    pub fn options(&self) -> DecodeOptions {
        let &Self { max_decoded_pixels, max_file_bytes } = self;
        DecodeOptions { max_decoded_pixels, max_file_bytes, ..DecodeOptions::default() }
    }
}

/// The device, for every command that computes.
#[derive(Debug, Args)]
pub struct DeviceArg {
    /// flex (the CPU), cuda[:N], vulkan[:N], wgpu[:N], metal or rocm[:N]; `fieldmark devices` lists those in this build.
    /// sft and tapo accept several, with commas between them.
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
}

impl DeviceArg {
    /// Returns the given name.
    pub fn name(&self) -> Option<&str> {
        self.device.as_deref()
    }
}

/// Returns a parser that lists `names` in `--help` and reads one of them.
fn named<T>(names: impl Into<PossibleValuesParser>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Into<Box<dyn Error + Send + Sync>>> + Clone + Send + Sync + 'static,
{
    names.into().try_map(|name| name.parse::<T>())
}
