//! The verdict of a step: how good a checkpoint is, and whether training must stop.

use super::Mark;
use crate::TrainError;

/// Which of two values is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The lower one: a loss.
    Lower,
    /// The higher one: a reward.
    Higher,
}

impl Direction {
    /// Returns true if `value` is better than `other`.
    pub fn is_better(self, value: f64, other: f64) -> bool {
        match self {
            Self::Lower => value < other,
            Self::Higher => value > other,
        }
    }
}

/// How good the model at one place of the run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Name of the metric.
    pub metric: &'static str,
    /// The value; always finite.
    pub value: f64,
    /// Which value is better.
    pub direction: Direction,
    /// The model that was measured: the one after the step, or the one that the step's rollouts were sampled from.
    pub mark: Mark,
}

/// How a step went.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How good a model is, if the step measured one.
    pub score: Option<Score>,
    /// Set if the run must stop because too many updates in a row had a loss or gradient that is not finite.
    pub fault: Option<TrainError>,
}
