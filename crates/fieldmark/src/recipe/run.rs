//! `[run]`: checkpoints, logs, and how several devices work together.

use fieldmark_train::parallel::Reduction;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Checkpoints that `--resume` continues from, and logs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RunSection {
    /// Save a checkpoint after this many updates (SFT) or rollout steps (TAPO), and whenever SFT's validation loss is
    /// the lowest so far. 0 saves only the finished model.
    pub save_every: usize,
    /// Number of newest checkpoints to keep. The best one is kept as well.
    pub keep: usize,
    /// Also write the metrics for TensorBoard, to `tensorboard` in the output folder.
    pub tensorboard: bool,
    /// Show the run on Burn's dashboard if the output is a terminal. Otherwise one line shows the progress.
    pub dashboard: bool,
    /// Peak of the device in 10¹² operations per second, for matrix products in the number format of the model. If set,
    /// the run measures which share of the peak it uses (MFU). NVIDIA's data sheets say, dense: A100 312 in bf16 and 156
    /// in TF32; H100 and H200 (SXM) 989 and 495.
    pub peak_tflops: Option<f64>,
    /// How the gradients of several devices are added up. "all_reduce" needs CUDA cards and NCCL; other devices always
    /// gather.
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
