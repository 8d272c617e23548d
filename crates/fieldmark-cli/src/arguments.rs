//! What can be asked for on the command line, with help that teaches.

use std::{error::Error, path::PathBuf, str::FromStr};

use clap::{
    Args, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use fieldmark::{Stage, model::WeightType};

use crate::commands::Bytes;

const OVERVIEW: &str = "\
Examples:
  fieldmark demo
      trains and scores a small model on the photographs that come with the repository
  fieldmark ask --model DIR --image pepper.jpg \"Which pepper is this?\"
      asks a checkpoint about a photograph
  fieldmark data check stage1.json --images photos
      reads a data file whole and lists what is wrong with it
  fieldmark sft  -c R.toml --set output=runs/sft
  fieldmark tapo -c R.toml --set model.path=runs/sft/checkpoint  --set output=runs/tapo
  fieldmark eval -c R.toml --set model.path=runs/tapo/checkpoint --set output=runs/eval
      the two stages of Fine-R1 and its scores; R.toml is a recipe such as recipes/fine-r1-3b.toml

Exit codes:
  0   done
  1   a check failed: parity, devices, the marks of the demo, or a plan's budget
  2   something given is wrong, and a line says what
  70  a fault inside Fieldmark (RUST_BACKTRACE=1 shows where)
  130 stopped by Ctrl-C or SIGTERM; sft and tapo have saved, and --resume goes on";

const RECIPES: &str = "\
A recipe is a TOML file with the sections [model], [data], [run], [sft], [tapo] and [eval]. Every
default is the paper's, so a recipe says only what differs; recipes/ holds the paper's own.
-c may be repeated: later files lie over earlier ones. `fieldmark show -c R.toml` prints what results.
--set changes one key and may be repeated. Its value is read as TOML, or else as a string:
  --set model.path=DIR --set sft.epochs=3 --set 'eval.files=[\"bird_seen.jsonl\"]'
Paths are relative to the folder you are in.";

const RUNS: &str = "\
Every [run] save_every updates (sft) or rollout steps (tapo) the output folder gets a checkpoint,
checkpoints/step-000012: a folder that transformers loads, with optimiser and state in trainer/.
The newest [run] keep are kept, and the best beside them. Ctrl-C (or SIGTERM) finishes the update
or rollout step, saves and stops with exit code 130; a second one stops at once.
On a terminal Burn's dashboard shows the run, with a curve of every metric; its q asks how to stop:
s as Ctrl-C does, k at once. It closes with the run, and what is said in between is printed then.
--set run.dashboard=false shows one line instead, as TERM=dumb, a CI variable, or output into a
file or pipe do.
--resume goes on to the same end, bit for bit, as a run that was never stopped. It passes over
damaged checkpoints, saying what is wrong with them, and refuses a recipe that makes another run;
output, device, [run] and data.check may differ.";

/// Fine-R1 in Rust: a vision-language model that learns to tell look-alikes apart by reasoning.
#[derive(Debug, Parser)]
#[command(name = "fieldmark", version, after_help = OVERVIEW, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a small model from nothing on the photographs that come with the repository, and score it.
    Demo(DemoArgs),
    /// Supervised fine-tuning of a checkpoint on conversations with reasoning (stage 1).
    #[command(after_help = format!("{RUNS}\n\n{RECIPES}"))]
    Sft(RunArgs),
    /// Triplet-augmented policy optimisation of a checkpoint (stage 2).
    #[command(after_help = format!("{RUNS}\n\n{RECIPES}"))]
    Tapo(RunArgs),
    /// Predictions of a checkpoint in the closed and the open world, and their scores.
    #[command(after_help = RECIPES)]
    Eval(EvalArgs),
    /// Ask a checkpoint about photographs; the answer appears as it is written.
    Ask(AskArgs),
    /// Print a recipe in full, with the origin of every value beside it.
    #[command(after_help = RECIPES)]
    Show(ShowArgs),
    /// Print the memory that a recipe needs on a device, before anything is loaded.
    #[command(after_help = PLANS)]
    Plan(PlanArgs),
    /// Look at data files.
    #[command(subcommand)]
    Data(DataCommand),
    /// List what this build can run on, and check that it computes rightly there.
    Devices,
    /// Compare every tensor of a reference folder with ours; exit code 1 if one is outside its tolerance.
    Parity(ParityArgs),
}

/// What `demo` takes.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder for checkpoints, metrics, predictions and the report.
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    pub out: PathBuf,
    /// Decides every random number.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder with labels.csv and the photographs it names [default: assets/produce of the repository].
    #[arg(long, value_name = "DIR")]
    pub photos: Option<PathBuf>,
    /// Passes of SFT over the training photographs.
    #[arg(long, value_name = "N", default_value_t = 120)]
    pub sft_epochs: usize,
    /// Rollout steps of TAPO.
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub tapo_steps: usize,
    /// Continue the demo in the output folder that Ctrl-C has stopped.
    #[arg(long)]
    pub resume: bool,
    /// Also train TAPO with positive rollouts scored on their own image, as the released code does.
    #[arg(long)]
    pub ablation: bool,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// What `sft` and `tapo` take.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The recipe; may be repeated, and later ones lie over earlier ones.
    #[arg(short, long, value_name = "FILE", required = true)]
    pub config: Vec<PathBuf>,
    /// Change one key of the recipe; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Write into an output folder that is not empty.
    #[arg(long)]
    pub overwrite: bool,
    /// Go on with the run in the output folder from its newest whole checkpoint; start it if it has none.
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// What `eval` takes.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The recipe; may be repeated, and later ones lie over earlier ones.
    #[arg(short, long, value_name = "FILE", required_unless_present = "score_only")]
    pub config: Vec<PathBuf>,
    /// Change one key of the recipe; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Write into an output folder that is not empty.
    #[arg(long)]
    pub overwrite: bool,
    /// Ask at most N rows of each file, evenly spread.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// Write predictions.jsonl and do not score it.
    #[arg(long, conflicts_with = "score_only")]
    pub predict_only: bool,
    /// Score a predictions file that is there; no model, no recipe.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub score_only: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// What `show` takes.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The recipe; may be repeated, and later ones lie over earlier ones [default: the defaults alone].
    #[arg(short, long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Change one key of the recipe; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the JSON schema of recipes instead, for editors that complete and check TOML.
    #[arg(long, conflicts_with_all = ["config", "set"])]
    pub schema: bool,
}

const PLANS: &str = "\
Planned for is the worst that the recipe allows: every sequence as long as its limit, every image
as large as its own. --tokens says what to expect instead. Only the model's config.json is read;
for the published 3B and 7B checkpoints not even that. A device's runtime and its allocator take
some more, so leave a tenth. With --budget the exit code is 1 where the recipe does not fit, and
settings that do are named.
  fieldmark plan -c recipes/fine-r1-3b.toml --stage sft --budget 80GB
  fieldmark plan -c recipes/fine-r1-7b.toml --stage tapo --tokens 3500";

/// What `plan` takes.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The recipe; may be repeated, and later ones lie over earlier ones.
    #[arg(short, long, value_name = "FILE", required = true)]
    pub config: Vec<PathBuf>,
    /// Change one key of the recipe; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The stage to plan.
    #[arg(long, value_parser = named::<Stage>(Stage::ALL.map(Stage::name)), default_value_t = Stage::Sft)]
    pub stage: Stage,
    /// What the device has, such as 80GB, 79GiB or 512MB.
    #[arg(long, value_name = "SIZE")]
    pub budget: Option<Bytes>,
    /// Tokens of the longest sequence, prompt and response together [default: the recipe's limits].
    #[arg(long, value_name = "N")]
    pub tokens: Option<usize>,
    /// config.json of the model [default: that of the recipe's model.path].
    #[arg(long, value_name = "FILE")]
    pub model_config: Option<PathBuf>,
}

/// What `ask` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fieldmark ask --model DIR --image pepper.jpg \"Which pepper is this?\"
  fieldmark ask --model DIR --image a.jpg --image b.jpg \"Do these show the same bird?\"
  fieldmark ask --model DIR --image a.jpg --image b.jpg \"In <image> and <image>, what differs?\"
Without <image> in the question the photographs come before it, in their order.")]
pub struct AskArgs {
    /// Checkpoint folder: config.json, weights, tokenizer, processor.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// A photograph (JPEG, PNG or WebP); may be repeated.
    #[arg(long, value_name = "FILE")]
    pub image: Vec<PathBuf>,
    /// The question.
    pub question: String,
    /// System text instead of the chat template's own.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Most tokens of the answer.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub max_new_tokens: usize,
    /// 0 always takes the most likely token.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f64,
    /// Share of probability that sampling keeps.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f64,
    /// Above 1 discourages words already there; 1 is none.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub repetition_penalty: f64,
    /// Decides the draws where the temperature is not 0.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Enlarge smaller photographs to about this many pixels [default: the checkpoint's].
    #[arg(long, value_name = "N")]
    pub min_pixels: Option<usize>,
    /// Reduce larger photographs to about this many pixels [default: the checkpoint's].
    #[arg(long, value_name = "N")]
    pub max_pixels: Option<usize>,
    /// Number format to compute in.
    #[arg(long, value_parser = named::<WeightType>(WeightType::ALL.map(WeightType::name)), default_value_t = WeightType::F32)]
    pub dtype: WeightType,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// The verbs of `data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Read a data file whole and say how many rows, images, classes and problems it has.
    #[command(after_help = "\
Conversations (ShareGPT JSON), evaluation rows, TAPO triplets (JSON or JSONL, .gz too) and
labels.csv are told apart by their content. Exit code 2 if there is a problem.
  fieldmark data check stage1.json --images photos
  fieldmark data check bird_seen.jsonl.gz")]
    Check(CheckArgs),
}

/// What `data check` takes.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The data file.
    pub file: PathBuf,
    /// Folder that image paths are relative to [default: the file's own].
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
}

/// What `parity` takes.
#[derive(Debug, Args)]
pub struct ParityArgs {
    /// Folder in the form of the reference fixtures.
    pub folder: PathBuf,
    /// tokenizer.json (or .json.gz) for the token ids of rendered chats.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// The device, as every command that computes takes it.
#[derive(Debug, Args)]
pub struct DeviceArg {
    /// flex (the CPU), cuda[:N], vulkan[:N], wgpu[:N], metal or rocm[:N], of those in this build: see `fieldmark devices`.
    /// sft and tapo take several with commas between them.
    #[arg(long, value_name = "NAME")]
    pub device: Option<String>,
}

impl DeviceArg {
    /// The name given.
    pub fn name(&self) -> Option<&str> {
        self.device.as_deref()
    }
}

/// A parser that lists `names` in `--help` and reads one of them.
fn named<T>(names: impl Into<PossibleValuesParser>) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err: Error + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    names.into().try_map(|name| name.parse::<T>())
}
