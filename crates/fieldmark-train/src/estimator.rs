//! From rewards to advantages, one number for all tokens of a response: GRPO (the default), RLOO (arXiv 2402.14740),
//! ReMax (2310.10505), REINFORCE++ (2501.03262) and Dr. GRPO (2503.20783).
//!
//! Reference: the estimators of the same names in `core_algos.py` of the released code, in f64; Dr. GRPO from its paper.
//! Rewards that are all equal say nothing: every estimator that subtracts their mean gives exactly 0.

use std::borrow::BorrowMut;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Group, TrainError, group_advantages};

/// Added to the variance before its root in REINFORCE++, as `masked_whiten` does.
const EPSILON: f64 = 1e-8;

/// How advantages are made from rewards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Estimator {
    /// Distance from the group's mean in standard deviations ([`group_advantages`]).
    #[default]
    #[serde(rename = "grpo")]
    Grpo,
    /// Distance from the mean of the group's other rewards ([`rloo_advantages`]).
    #[serde(rename = "rloo")]
    Rloo,
    /// Distance from the mean of all rewards of a step in standard deviations ([`whitened_advantages`]). Groups only
    /// decide what is trained on.
    #[serde(rename = "reinforce++")]
    ReinforcePlusPlus,
    /// Distance from the reward of a greedy response to the same prompt and image ([`remax_advantages`]): one more response
    /// a prompt and image, which is not trained on.
    #[serde(rename = "remax")]
    Remax,
    /// Distance from the group's mean ([`centred_advantages`]). The paper's loss also has
    /// [`crate::LossAverage::Constant`], which is a setting of its own.
    #[serde(rename = "dr_grpo")]
    DrGrpo,
}

impl Estimator {
    /// Whether advantages need all groups that a step trains on; else a group's own rewards are enough.
    pub fn is_over_step(self) -> bool {
        self == Self::ReinforcePlusPlus
    }

    /// Whether each prompt and image is also answered greedily.
    pub fn wants_greedy(self) -> bool {
        self == Self::Remax
    }

    /// Advantages within one group, in the order of `rewards`. `greedy` has the reward of the greedy response to the prompt
    /// and image of each; only ReMax looks at it. All 0 where [`Self::is_over_step`].
    ///
    /// # Errors
    /// A reward that is NaN or infinite.
    pub fn within_group(self, rewards: &[f64], greedy: &[f64]) -> Result<Vec<f64>, TrainError> {
        match self {
            Self::Grpo => group_advantages(rewards),
            Self::Rloo => rloo_advantages(rewards),
            Self::Remax => remax_advantages(rewards, greedy),
            Self::DrGrpo => centred_advantages(rewards),
            Self::ReinforcePlusPlus => check(rewards).map(|()| vec![0.0; rewards.len()]),
        }
    }

    /// Sets the advantages that need all groups of a step; does nothing where a group is enough.
    ///
    /// # Errors
    /// A reward that is NaN or infinite.
    pub(crate) fn over_step(self, groups: &mut [impl BorrowMut<Group>]) -> Result<(), TrainError> {
        if !self.is_over_step() {
            return Ok(());
        }
        let rollouts = || groups.iter().flat_map(|group| &group.borrow().rollouts);
        let rewards: Vec<f64> = rollouts().map(|rollout| rollout.reward.overall).collect();
        let tokens: Vec<usize> = rollouts().map(|rollout| rollout.response.ids.len()).collect();
        let advantages = whitened_advantages(&rewards, &tokens)?;
        let rollouts = groups.iter_mut().flat_map(|group| &mut group.borrow_mut().rollouts);
        rollouts.zip(advantages).for_each(|(rollout, advantage)| rollout.advantage = advantage);
        Ok(())
    }
}

/// `A_i = r_i - mean of the others`; 0 for a group of one.
///
/// Reference: `compute_rloo_outcome_advantage`, which refuses a group of one.
///
/// # Errors
/// A reward that is NaN or infinite.
pub fn rloo_advantages(rewards: &[f64]) -> Result<Vec<f64>, TrainError> {
    check(rewards)?;
    if all_equal(rewards) {
        return Ok(vec![0.0; rewards.len()]);
    }
    let sum: f64 = rewards.iter().sum();
    let others = (rewards.len() - 1) as f64;
    Ok(rewards.iter().map(|r| r - (sum - r) / others).collect())
}

/// `A_i = r_i - mean`, without dividing by the deviation: a group that is nearly all right or wrong then weighs no more.
///
/// Dr. GRPO, arXiv 2503.20783.
///
/// # Errors
/// A reward that is NaN or infinite.
pub fn centred_advantages(rewards: &[f64]) -> Result<Vec<f64>, TrainError> {
    check(rewards)?;
    if all_equal(rewards) {
        return Ok(vec![0.0; rewards.len()]);
    }
    let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
    Ok(rewards.iter().map(|r| r - mean).collect())
}

/// `A_i = r_i - b_i`, with `b_i` the reward of the greedy response to the same prompt and image. `greedy` is as long as
/// `rewards`.
///
/// Reference: `compute_remax_outcome_advantage`.
///
/// # Errors
/// A reward that is NaN or infinite.
pub fn remax_advantages(rewards: &[f64], greedy: &[f64]) -> Result<Vec<f64>, TrainError> {
    check(rewards)?;
    check(greedy)?;
    Ok(rewards.iter().zip(greedy).map(|(r, b)| r - b).collect())
}

/// `A_i = (r_i - mean) / sqrt(var + 1e-8)` with mean and unbiased variance over all tokens of all responses, so that a
/// response counts as often as it has tokens.
///
/// REINFORCE++ as `compute_reinforce_plus_plus_outcome_advantage` has it: the reward comes with the last token, the return
/// is not discounted (gamma 1) and hence the reward at every token, and returns are whitened over the batch. The paper's
/// divergence from a reference model inside the reward is not part of it; `kl_ref` puts one into the loss.
///
/// # Errors
/// A reward that is NaN or infinite.
pub fn whitened_advantages(rewards: &[f64], tokens: &[usize]) -> Result<Vec<f64>, TrainError> {
    check(rewards)?;
    let count: usize = tokens.iter().sum();
    if all_equal(rewards) || count < 2 {
        return Ok(vec![0.0; rewards.len()]);
    }
    let sum =
        |value: &dyn Fn(f64) -> f64| -> f64 { rewards.iter().zip(tokens).map(|(&r, &t)| value(r) * t as f64).sum() };
    let mean = sum(&|r| r) / count as f64;
    let variance = sum(&|r| (r - mean).powi(2)) / (count - 1) as f64;
    let scale = (variance + EPSILON).sqrt();
    Ok(rewards.iter().map(|r| (r - mean) / scale).collect())
}

fn all_equal(rewards: &[f64]) -> bool {
    rewards.windows(2).all(|pair| pair[0] == pair[1])
}

fn check(rewards: &[f64]) -> Result<(), TrainError> {
    match rewards.iter().enumerate().find(|(_, r)| !r.is_finite()) {
        Some((index, &value)) => Err(TrainError::NonFiniteReward { index, value }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() < 1e-9, "{found:?} for {expected:?}");
        }
    }

    #[test]
    fn leave_one_out() {
        // Sum 1.6. 1 - (1.6 - 1)/3 = 0.8; 0.5 - 1.1/3 = 0.4/3; 0.1 - 1.5/3 = -0.4; 0 - 1.6/3.
        let found = rloo_advantages(&[1.0, 0.5, 0.1, 0.0]).unwrap();
        close(&found, &[0.8, 0.4 / 3.0, -0.4, -1.6 / 3.0]);
        // Of two, each is the other's baseline.
        close(&rloo_advantages(&[1.0, 0.1]).unwrap(), &[0.9, -0.9]);
        assert_eq!(rloo_advantages(&[1.0]).unwrap(), [0.0]);
        assert_eq!(rloo_advantages(&[0.1 + 0.2; 7]).unwrap(), [0.0; 7]);
        assert!(rloo_advantages(&[]).unwrap().is_empty());
    }

    #[test]
    fn the_mean_without_the_deviation() {
        // Mean 1.6/4 = 0.4.
        close(&centred_advantages(&[1.0, 0.5, 0.1, 0.0]).unwrap(), &[0.6, 0.1, -0.3, -0.4]);
        // RLOO is the same times n/(n - 1).
        let rloo = rloo_advantages(&[1.0, 0.5, 0.1, 0.0]).unwrap();
        close(&rloo, &[0.6, 0.1, -0.3, -0.4].map(|a| a * 4.0 / 3.0));
        assert_eq!(centred_advantages(&[0.1 + 0.2; 7]).unwrap(), [0.0; 7]);
    }

    #[test]
    fn the_greedy_response_is_the_baseline() {
        // Two rollouts of the anchor, whose greedy response got 0.1, and two of the positive, whose got 1.
        let found = remax_advantages(&[1.0, 0.1, 1.0, 0.1], &[0.1, 0.1, 1.0, 1.0]).unwrap();
        close(&found, &[0.9, 0.0, 0.0, -0.9]);
    }

    #[test]
    fn whitening_counts_tokens() {
        // Rewards 1, 0, 0.5 on 1, 2 and 1 tokens: 1, 0, 0, 0.5. Mean 1.5/4 = 0.375; squares 0.625^2 + 2 * 0.375^2 + 0.125^2
        // = 0.390625 + 0.28125 + 0.015625 = 0.6875; variance 0.6875/3 = 0.229166...
        let scale = (0.6875f64 / 3.0 + 1e-8).sqrt();
        let found = whitened_advantages(&[1.0, 0.0, 0.5], &[1, 2, 1]).unwrap();
        close(&found, &[0.625 / scale, -0.375 / scale, 0.125 / scale]);
        close(&found, &[1.305_582_391_182, -0.783_349_434_709, 0.261_116_478_236]);
        assert_eq!(whitened_advantages(&[0.3; 4], &[5, 1, 2, 9]).unwrap(), [0.0; 4]);
        assert_eq!(whitened_advantages(&[0.3], &[1]).unwrap(), [0.0]);
    }

    #[test]
    fn each_name_is_its_estimator() {
        let (rewards, greedy) = ([1.0, 0.5, 0.1, 0.0], [0.1, 0.1, 1.0, 1.0]);
        let names = ["grpo", "rloo", "remax", "dr_grpo", "reinforce++"];
        let of = |name: &str| serde_json::from_str::<Estimator>(&format!("\"{name}\"")).unwrap();
        let [grpo, rloo, remax, dr_grpo, reinforce] =
            names.map(|name| of(name).within_group(&rewards, &greedy).unwrap());
        assert_eq!(grpo, group_advantages(&rewards).unwrap());
        close(&rloo, &[0.8, 0.4 / 3.0, -0.4, -1.6 / 3.0]);
        close(&remax, &[0.9, 0.4, -0.9, -1.0]);
        close(&dr_grpo, &[0.6, 0.1, -0.3, -0.4]);
        assert_eq!(reinforce, [0.0; 4]);
        for name in names {
            assert_eq!(serde_json::to_string(&of(name)).unwrap(), format!("\"{name}\""));
            for bad in [f64::NAN, f64::INFINITY] {
                let refused = of(name).within_group(&[0.0, bad], &[0.0, 0.0]);
                assert!(matches!(refused, Err(TrainError::NonFiniteReward { index: 1, .. })), "{name}");
            }
        }
        assert!(remax_advantages(&[0.0], &[f64::NAN]).is_err() && whitened_advantages(&[f64::NAN], &[1]).is_err());
        assert_eq!(Estimator::default(), Estimator::Grpo);
    }
}
