//! How a demo is run, and how it ends.

use std::path::PathBuf;

use burn::tensor::Device;
use fieldmark_processor::DecodeOptions;
use fieldmark_train::trainer::Interrupt;

/// Options of the demo.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Folder with `labels.csv` and its photographs.
    pub photos: PathBuf,
    /// How photographs are decoded.
    pub decode: DecodeOptions,
    /// Whether to check that the scores reach the marks, which are set for the photographs of the repository.
    pub judge: bool,
    /// Folder for checkpoints, metrics, predictions and the report. It is created if it is missing.
    pub out: PathBuf,
    /// Decides every random number.
    pub seed: u64,
    /// Number of SFT epochs.
    pub sft_epochs: usize,
    /// Number of TAPO rollout steps.
    pub tapo_steps: usize,
    /// Whether to train TAPO a second time with positive rollouts scored on their own image, as in the released code.
    pub ablation: bool,
    /// Whether to resume a demo that was stopped. Finished stages are not trained again.
    pub resume: bool,
    /// Whether to replace what is in the folder. Without it and `resume`, the folder must be empty.
    pub overwrite: bool,
    /// The device.
    pub device: Device,
    /// Name of the device in predictions.
    pub device_name: String,
    /// A shared flag that stops the demo after the current step, with a checkpoint.
    pub interrupt: Interrupt,
}

/// How a demo ended.
#[derive(Debug, Clone, Default)]
pub struct DemoOutcome {
    /// The table of all models, for a terminal; empty if the demo was stopped.
    pub report: String,
    /// The marks that the SFT model misses. Empty means success.
    pub missed: Vec<String>,
    /// Whether the demo was stopped.
    pub stopped: bool,
}
