//! What a run writes down: `metrics.jsonl`, `timings.jsonl`, every response of TAPO, and TensorBoard's curves.

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
