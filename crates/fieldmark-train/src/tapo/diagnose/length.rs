//! The mean length of responses over the steps of a run. A reward that does not need the reasoning can make it vanish.

use serde::{Deserialize, Serialize};

/// How the mean length compares with the first step's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Lengths {
    /// Mean number of tokens in the first step that sampled any.
    first: Option<f64>,
    /// How often the length had halved when it was last told.
    halvings: u32,
}

impl Lengths {
    /// Takes the mean length of a step's responses, NaN if none were sampled. Returns the first step's if the length
    /// has halved, or halved once more, since it was last told.
    pub(super) fn look(&mut self, mean: f64) -> Option<f64> {
        if !mean.is_finite() {
            return None;
        }
        let first = *self.first.get_or_insert(mean);
        let halvings = (first / mean.max(1.0)).log2().floor().max(0.0) as u32;
        let more = halvings > self.halvings;
        self.halvings = self.halvings.max(halvings);
        more.then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_halving_is_told_once() {
        let mut lengths = Lengths::default();
        let means = [f64::NAN, 80.0, 41.0, 100.0, 40.0, 39.0, 30.0, 20.0, 9.0, 70.0, 12.0];
        let told: Vec<bool> = means.map(|mean| lengths.look(mean).is_some()).into();
        let expected = [false, false, false, false, true, false, false, true, true, false, false];
        assert_eq!(told, expected);
        assert_eq!(lengths, Lengths { first: Some(80.0), halvings: 3 });
    }

    #[test]
    fn a_first_step_of_one_token_cannot_become_shorter() {
        let mut lengths = Lengths::default();
        assert!([1.0, 0.5, 0.0].into_iter().all(|mean| lengths.look(mean).is_none()));
    }
}
