//! Learning-rate schedules: linear warm-up, then constant or a cosine to 0. The first rate is `lr / warmup`, or `lr` if
//! there is no warm-up. `released` starts at 0, like `get_cosine_schedule_with_warmup` (SFT) and the constant schedule
//! of the released TAPO code. The latter counts rollout steps and starts at 0 even with a warm-up of 0, so no update of
//! its first step changes the weights.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Shape of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LrShape {
    /// Half a cosine, from `lr` down to 0 at the end of the run (SFT).
    #[default]
    Cosine,
    /// `lr` until the end of the run (TAPO).
    Constant,
}

/// Learning rate over the run: `warmup` updates of linear warm-up to `lr`, then `shape`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LrSchedule {
    /// Learning rate after the warm-up.
    pub lr: f64,
    /// Shape after the warm-up: `cosine` or `constant`.
    pub shape: LrShape,
    /// Number of updates of linear warm-up. The first one uses `lr / warmup`.
    pub warmup: usize,
    /// Whether to start at 0 like the released code. In TAPO, `warmup` then counts rollout steps instead of updates,
    /// and all updates of a step use the same rate.
    pub released: bool,
}

impl Default for LrSchedule {
    /// The paper's schedule for SFT: 5e-6, cosine, 6 warm-up updates.
    fn default() -> Self {
        Self { lr: 5e-6, shape: LrShape::Cosine, warmup: 6, released: false }
    }
}

impl LrSchedule {
    /// Learning rate of update `update` (counted from 0) in a run of `total` updates.
    pub fn at(&self, update: usize, total: usize) -> f64 {
        let (t, warmup) = (update as f64, self.warmup as f64);
        if self.released && update == 0 && (self.warmup > 0 || self.shape == LrShape::Constant) {
            return 0.0;
        }
        if update < self.warmup {
            let start = if self.released { 0.0 } else { 1.0 };
            return self.lr * (t + start) / warmup;
        }
        match self.shape {
            LrShape::Constant => self.lr,
            LrShape::Cosine => {
                let progress = (t - warmup) / total.saturating_sub(self.warmup).max(1) as f64;
                self.lr * 0.5 * (1.0 + (PI * progress.min(1.0)).cos())
            }
        }
    }

    /// Checks the learning rate.
    ///
    /// # Errors
    /// Returns an error if `lr` is negative or not finite.
    pub fn validate(&self) -> Result<(), TrainError> {
        if self.lr.is_finite() && self.lr >= 0.0 {
            Ok(())
        } else {
            Err(TrainError::Setting { key: "lr", value: self.lr.to_string(), expected: "at least 0" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 5e-9, "{found} for {expected}");
    }

    #[test]
    fn released_cosine_has_its_known_values() {
        let schedule = LrSchedule { released: true, ..Default::default() };
        for (t, lr) in [(0, 0.0), (3, 2.5e-6), (5, 4.1667e-6), (6, 5e-6), (38, 2.5e-6), (70, 0.0)] {
            close(schedule.at(t, 70), lr);
        }
    }

    #[test]
    fn ours_moves_from_the_first_update() {
        let schedule = LrSchedule::default();
        for (t, lr) in [(0, 5e-6 / 6.0), (5, 5e-6), (6, 5e-6), (38, 2.5e-6), (70, 0.0), (90, 0.0)] {
            close(schedule.at(t, 70), lr);
        }
    }

    #[test]
    fn constant_without_warm_up() {
        let ours = LrSchedule { lr: 1e-6, shape: LrShape::Constant, warmup: 0, released: false };
        assert_eq!([ours.at(0, 9), ours.at(8, 9)], [1e-6, 1e-6]);
        let released = LrSchedule { released: true, ..ours };
        assert_eq!([released.at(0, 9), released.at(1, 9)], [0.0, 1e-6]);
        let cosine = LrSchedule { shape: LrShape::Cosine, ..released };
        assert_eq!(cosine.at(0, 9), 1e-6);
        let warm = LrSchedule { warmup: 4, ..ours };
        assert_eq!([warm.at(0, 9), warm.at(3, 9), warm.at(4, 9)], [2.5e-7, 1e-6, 1e-6]);
        assert_eq!(LrSchedule { warmup: 9, ..LrSchedule::default() }.at(9, 9), 5e-6);
    }
}
