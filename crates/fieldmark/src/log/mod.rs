//! The logs of a run: `metrics.jsonl`, `timings.jsonl`, every response of TAPO, and event files for TensorBoard.

mod metrics;
mod numbers;
mod responses;
mod run_log;
mod tensorboard;

pub(crate) use self::run_log::{LogSettings, RunLog};
pub use self::{
    metrics::{LogEnd, MetricsWriter},
    numbers::numbers,
    tensorboard::TensorBoard,
};
