//! How many groups teach something. A group teaches if its responses differ in reward; with rewards of 0 and 1, if some
//! are right and some are wrong.

use std::borrow::Borrow;

use crate::{TrainError, tapo::rollout::Group, trainer::Finding};

/// Number of steps in a row without a group to learn from after which a run stops. Each of them costs all its tries.
const MOST_EMPTY_IN_A_ROW: usize = 3;

/// Returns an error if `steps` steps in a row without a group are too many.
pub(super) fn stalled(steps: usize) -> Option<TrainError> {
    (steps >= MOST_EMPTY_IN_A_ROW).then_some(TrainError::NoGroups { steps })
}

/// Number of groups in which some advantage is not 0.
pub(in crate::tapo) fn teaching(groups: &[impl Borrow<Group>]) -> usize {
    let teaches = |group: &Group| group.rollouts.iter().any(|rollout| rollout.advantage != 0.0);
    groups.iter().filter(|group| teaches((*group).borrow())).count()
}

/// The share of groups of `group` responses that is expected to have right and wrong ones, if each response is right
/// with probability `accuracy`: 1 − pᴳ − (1 − p)ᴳ. `None` if `accuracy` is not a probability.
pub(in crate::tapo) fn outlook_expected(accuracy: f64, group: usize) -> Option<Finding> {
    if !(0.0..=1.0).contains(&accuracy) {
        return None;
    }
    let all = |p: f64| p.powi(i32::try_from(group).unwrap_or(i32::MAX));
    let share = (1.0 - all(accuracy) - all(1.0 - accuracy)).max(0.0);
    Some(Finding::Outlook { accuracy, share, group, counted: None })
}

/// The share of sampled groups that have right and wrong responses. `None` without groups.
pub(in crate::tapo) fn outlook_counted(groups: &[Group]) -> Option<Finding> {
    let first = groups.first()?;
    let differ = |group: &&Group| {
        let mut accuracies = group.rollouts.iter().map(|rollout| rollout.reward.accuracy);
        accuracies.next().is_some_and(|first| accuracies.any(|other| other != first))
    };
    let counted = groups.len();
    let share = groups.iter().filter(differ).count() as f64 / counted as f64;
    let accuracy = groups.iter().map(Group::mean_accuracy).sum::<f64>() / counted as f64;
    Some(Finding::Outlook { accuracy, share, group: first.rollouts.len(), counted: Some(counted) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::rollout::{ImageRole, tests};

    fn share(finding: Option<Finding>) -> f64 {
        match finding {
            Some(Finding::Outlook { share, .. }) => share,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_expected_share_is_the_binomials() {
        // Brute force over all 2^G outcomes.
        for (accuracy, group) in [(0.3, 4), (0.5, 2), (0.9, 10), (0.0, 5), (1.0, 5), (0.25, 1)] {
            let weight = |outcome: u32| -> f64 {
                (0..group).map(|i| if outcome >> i & 1 == 1 { accuracy } else { 1.0 - accuracy }).product()
            };
            let mixed = 1..(1u32 << group) - 1;
            let expected: f64 = mixed.map(weight).sum();
            assert!((share(outlook_expected(accuracy, group as usize)) - expected).abs() < 1e-12);
        }
        assert!(outlook_expected(f64::NAN, 4).is_none() && outlook_expected(1.5, 4).is_none());
    }

    #[test]
    fn groups_are_counted_by_their_responses() {
        let group = |accuracies: &[f64]| {
            tests::group(accuracies.iter().map(|&accuracy| tests::rollout(ImageRole::Anchor, accuracy)).collect())
        };
        let groups = [group(&[0.0, 1.0]), group(&[0.0, 0.0]), group(&[1.0, 1.0]), group(&[1.0, 0.0])];
        let expected = Finding::Outlook { accuracy: 0.5, share: 0.5, group: 2, counted: Some(4) };
        assert_eq!(outlook_counted(&groups), Some(expected));
        assert!(outlook_counted(&[]).is_none());
        assert_eq!(teaching(&groups), 0);
        let mut taught = groups.clone();
        taught[1].rollouts[1].advantage = -0.5;
        assert_eq!(teaching(&taught), 1);
    }
}
