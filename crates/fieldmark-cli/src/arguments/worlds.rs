//! The options of the demo, and of the commands that make worlds and their base models.

use std::path::PathBuf;

use clap::Args;
use fieldmark::world::{ExportConfig, Lessons, WorldConfig};

use super::{DecodeArgs, DeviceArg};

/// The arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder for checkpoints, metrics, predictions and the report.
    #[arg(long, value_name = "DIR", default_value = "runs/demo")]
    pub out: PathBuf,
    /// Seed of every random number.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Base model of a world, from `fieldmark base` [default: assets/field-guide/base of the repository].
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// Test pictures of each species.
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "photos")]
    pub pictures: usize,
    /// Epochs of TAPO over the triplets of the world.
    #[arg(long, value_name = "N", default_value_t = 2, conflicts_with = "photos")]
    pub tapo_epochs: usize,
    /// Train every variant of the method with several seeds, and compare them with paired tests. Takes hours; --resume
    /// continues.
    #[arg(long, conflicts_with = "photos")]
    pub full: bool,
    /// With --full: number of seeds, from --seed on.
    #[arg(long, value_name = "N", default_value_t = 5, requires = "full")]
    pub seeds: usize,
    /// With --full: only these variants, such as base,cot,dapo,tapo.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "full")]
    pub arms: Vec<String>,
    /// Continue a stopped demo in the output folder.
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Replace what is in the output folder.
    #[arg(long)]
    pub overwrite: bool,
    /// Instead of the world: train a model from nothing on photographs. DIR has labels.csv and the photographs that it
    /// names; see below [default of DIR: assets/produce of the repository].
    #[arg(long, value_name = "DIR", num_args = 0..=1, conflicts_with = "base")]
    pub photos: Option<Option<PathBuf>>,
    /// With --photos: epochs of SFT over the training photographs.
    #[arg(long, value_name = "N", default_value_t = 120, requires = "photos")]
    pub sft_epochs: usize,
    /// With --photos: rollout steps of TAPO.
    #[arg(long, value_name = "N", default_value_t = 12, requires = "photos")]
    pub tapo_steps: usize,
    /// With --photos: also train TAPO with positive rollouts scored on their own image, as the released code does.
    #[arg(long, requires = "photos")]
    pub ablation: bool,
    #[command(flatten)]
    pub decode: DecodeArgs,
    #[command(flatten)]
    pub device: DeviceArg,
}

/// The arguments of `world`.
#[derive(Debug, Args)]
pub struct WorldArgs {
    /// Folder for the world; it must be empty or not exist.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Seed of the species: their names and marks.
    #[arg(long, default_value_t = WorldConfig::default().seed)]
    pub seed: u64,
    /// Number of species, an even number.
    #[arg(long, value_name = "N", default_value_t = WorldConfig::default().species)]
    pub species: usize,
    /// Test pictures of each species.
    #[arg(long, value_name = "K", default_value_t = ExportConfig::default().test)]
    pub images: usize,
    /// Seed of the pictures.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    pub pictures: u64,
    /// Side of a picture in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = ExportConfig::default().side)]
    pub side: u32,
    /// Also write every test picture made harder to read: blur, noise, darkness, JPEG, occlusion, resolution, five levels
    /// each.
    #[arg(long)]
    pub robustness: bool,
}

/// The arguments of `base`.
#[derive(Debug, Args)]
pub struct BaseArgs {
    /// Folder for the training run and the model.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Seed of the species: their names and marks.
    #[arg(long, value_name = "SEED", default_value_t = WorldConfig::default().seed)]
    pub world: u64,
    /// Number of species in the world.
    #[arg(long, value_name = "N", default_value_t = WorldConfig::default().species)]
    pub species: usize,
    /// Number of pictures that are described without a name.
    #[arg(long, value_name = "N", default_value_t = Lessons::default().described)]
    pub pictures: usize,
    /// Seed of every other random number.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Continue a stopped training in the output folder.
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Replace what is in the output folder.
    #[arg(long)]
    pub overwrite: bool,
    #[command(flatten)]
    pub device: DeviceArg,
}
