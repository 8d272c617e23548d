//! GRPO: `A_i = (r_i - mean(r)) / (std(r) + 1e-6)`, with the unbiased standard deviation over the group. All rollouts
//! of a prompt, from anchor and positive, form one group. Deviation from the released code: if all rewards are equal,
//! or there is only one, the advantage is exactly 0; its f32 mean leaves up to 0.05 there, and NaN for a group of one.

use super::rewards::{all_equal, check};
use crate::TrainError;

const EPSILON: f64 = 1e-6;

/// Advantages of one group, in the order of `rewards`.
///
/// Reference: `compute_grpo_outcome_advantage`, here in f64.
///
/// # Errors
/// Returns an error if a reward is NaN or infinite.
pub fn group_advantages(rewards: &[f64]) -> Result<Vec<f64>, TrainError> {
    check(rewards)?;
    if all_equal(rewards) {
        return Ok(vec![0.0; rewards.len()]);
    }
    let n = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / n;
    let variance = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let scale = variance.sqrt() + EPSILON;
    Ok(rewards.iter().map(|r| (r - mean) / scale).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(serde::Deserialize)]
    struct Case {
        rewards: Vec<f64>,
        advantages: Option<Vec<f64>>,
    }

    #[test]
    fn every_reference_group_has_its_advantages() {
        let text = include_str!("../../../../../tests/fixtures/tapo/advantages.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert_eq!(cases.len(), 8);
        for case in cases {
            let found = group_advantages(&case.rewards).unwrap();
            let expected = case.advantages.unwrap_or_else(|| vec![0.0]);
            assert_eq!(found.len(), expected.len());
            for (f, e) in found.iter().zip(&expected) {
                assert!((f - e).abs() < 1e-9, "{:?}: {f} for {e}", case.rewards);
            }
        }
    }

    #[test]
    fn ten_well_formed_rollouts_with_k_right() {
        for (right, up, down) in [(1, 2.846, -0.316), (2, 1.897, -0.474), (5, 0.949, -0.949), (9, 0.316, -2.846)] {
            let rewards: Vec<f64> = (0..10).map(|i| if i < right { 1.0 } else { 0.1 }).collect();
            let found = group_advantages(&rewards).unwrap();
            assert!((found[0] - up).abs() < 1e-3 && (found[9] - down).abs() < 1e-3, "{found:?}");
        }
    }

    #[test]
    fn equal_rewards_give_exactly_zero_and_nan_is_refused() {
        assert_eq!(group_advantages(&[0.1 + 0.2; 7]).unwrap(), [0.0; 7]);
        assert_eq!(group_advantages(&[1.0]).unwrap(), [0.0]);
        assert!(group_advantages(&[]).unwrap().is_empty());
        let refused = group_advantages(&[0.0, f64::NAN]);
        assert!(matches!(refused, Err(TrainError::NonFiniteReward { index: 1, .. })));
    }

    proptest! {
        #[test]
        fn mean_zero_and_spread_one(rewards in prop::collection::vec(-5.0f64..5.0, 2..12)) {
            let a = group_advantages(&rewards).unwrap();
            let n = a.len() as f64;
            prop_assert!((a.iter().sum::<f64>() / n).abs() < 1e-9);
            let spread = (rewards.iter().fold(f64::MIN, |m, &r| m.max(r))
                - rewards.iter().fold(f64::MAX, |m, &r| m.min(r))).abs();
            prop_assume!(spread > 0.1);
            let variance = a.iter().map(|x| x * x).sum::<f64>() / (n - 1.0);
            prop_assert!((variance - 1.0).abs() < 1e-4);
        }
    }
}
