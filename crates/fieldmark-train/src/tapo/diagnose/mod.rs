//! What a TAPO run notices about itself and says aloud: a reward that rises without the accuracy, steps that teach
//! nothing, responses that become short, a model that does not look at its image. What must be known over several steps
//! is saved with the run, so that a resumed run says the same.

mod accuracy;
mod groups;
mod image;
mod length;

use serde::{Deserialize, Serialize};

pub use self::accuracy::{Accuracies, AccuracyWatch, Parted};
use self::{groups::stalled, image::is_blind, length::Lengths};
pub(super) use self::{
    groups::{outlook_counted, outlook_expected, teaching},
    image::{blanked, gap},
};
use super::metrics::RolloutMetrics;
use crate::{TrainError, trainer::Finding};

/// What a run has to remember from step to step to say each thing once.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Diagnosis {
    /// Number of steps in a row, up to now, in which no group passed the filter.
    empty_steps: usize,
    /// Whether the model was found not to look at the image when it was last checked.
    blind: bool,
    lengths: Lengths,
    /// Strict accuracy and inclusion over the steps so far.
    accuracy: AccuracyWatch,
}

impl Diagnosis {
    /// Looks at the rollouts of a step, in groups of `group`, over a source of `rows` rows. Returns what is to be said.
    pub(super) fn look(&mut self, row: &RolloutMetrics, group: usize, rows: usize) -> Vec<Finding> {
        let (step, counts) = (row.rollout_step, row.groups);
        let mut found = Vec::new();
        if counts.offered > rows {
            found.push(Finding::Passes { step, drawn: counts.offered, rows });
        }
        self.empty_steps = if row.trained_on == 0 { self.empty_steps + 1 } else { 0 };
        if row.trained_on == 0 {
            let (drawn, all_right, all_wrong) = (counts.offered, counts.all_right, counts.all_wrong);
            found.push(Finding::NoGroup { step, drawn, all_right, all_wrong });
        } else if row.teaching == 0 {
            found.push(Finding::NoAdvantage { step, groups: row.trained_on });
        }
        let short = self.lengths.look(row.response_tokens);
        found.extend(short.map(|first| Finding::ShortResponses { step, tokens: row.response_tokens, first }));
        if let Some(gap) = row.image_gap {
            let blind = is_blind(gap);
            found.extend((blind && !self.blind).then_some(Finding::Blind { step, gap }));
            self.blind = blind;
        }
        found.extend(self.accuracy.after(counts.offered * group, row.right).map(Finding::Parted));
        found
    }

    /// Returns an error if the run must stop because too many steps in a row had no group to learn from.
    pub(super) fn fault(&self) -> Option<TrainError> {
        stalled(self.empty_steps)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::tapo::rollout::{FilterCounts, SamplerGap};

    fn row(trained_on: usize, teaching: usize) -> RolloutMetrics {
        RolloutMetrics {
            step: 4,
            rollout_step: 3,
            reward: 0.5,
            accuracy_anchor: 0.5,
            accuracy_positive: 0.5,
            rewards: BTreeMap::new(),
            right: Accuracies { strict: 0.5, inclusion: 0.5 },
            response_tokens: 20.0,
            truncated: 0.0,
            sampler: SamplerGap { sampler_gap: 0.0, sampler_gap_max: 0.0, sampler_ratio: 1.0 },
            groups: FilterCounts { offered: 8, all_right: 2, all_wrong: 6, ..FilterCounts::default() },
            trained_on,
            teaching,
            rollout_age: 0.0,
            passes: 0.5,
            image_gap: None,
        }
    }

    #[test]
    fn a_step_that_teaches_says_nothing() {
        assert!(Diagnosis::default().look(&row(4, 3), 4, 16).is_empty());
        let passes = Diagnosis::default().look(&row(4, 3), 4, 7);
        assert_eq!(passes, [Finding::Passes { step: 3, drawn: 8, rows: 7 }]);
        assert!(Diagnosis::default().look(&row(4, 3), 4, 8).is_empty());
        let none = Diagnosis::default().look(&row(4, 0), 4, 16);
        assert_eq!(none, [Finding::NoAdvantage { step: 3, groups: 4 }]);
    }

    #[test]
    fn empty_steps_are_told_and_three_in_a_row_are_too_many() {
        let mut diagnosis = Diagnosis::default();
        let empty = Finding::NoGroup { step: 3, drawn: 8, all_right: 2, all_wrong: 6 };
        for _ in 0..2 {
            assert_eq!(diagnosis.look(&row(0, 0), 4, 16), std::slice::from_ref(&empty));
            assert!(diagnosis.fault().is_none());
        }
        let mut saved: Diagnosis = toml::from_str(&toml::to_string(&diagnosis).unwrap()).unwrap();
        assert_eq!(saved.look(&row(0, 0), 4, 16), [empty]);
        assert!(matches!(saved.fault(), Some(TrainError::NoGroups { steps: 3 })));
        diagnosis.look(&row(1, 1), 4, 16);
        diagnosis.look(&row(0, 0), 4, 16);
        assert!(diagnosis.fault().is_none());
    }

    #[test]
    fn blindness_is_told_when_it_begins() {
        let mut diagnosis = Diagnosis::default();
        let mut told = |gap| diagnosis.look(&RolloutMetrics { image_gap: gap, ..row(4, 3) }, 4, 16);
        assert_eq!(told(Some(0.0)), [Finding::Blind { step: 3, gap: 0.0 }]);
        assert!(told(None).is_empty() && told(Some(0.0)).is_empty() && told(Some(0.5)).is_empty());
        assert_eq!(told(Some(1e-6)).len(), 1);
    }
}
