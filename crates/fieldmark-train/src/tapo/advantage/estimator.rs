//! The choice of estimator: GRPO (the default), RLOO, ReMax, REINFORCE++ or Dr. GRPO.
//!
//! Reference: the estimators of the same names in `core_algos.py` of the released code, here in f64; Dr. GRPO follows
//! its paper. For equal rewards, every estimator that subtracts their mean gives exactly 0.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    dr_grpo::centred_advantages, grpo::group_advantages, remax::remax_advantages, rewards::check, rloo::rloo_advantages,
};
use crate::TrainError;

/// How advantages are computed from rewards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Estimator {
    /// Reward minus the group's mean, divided by the group's standard deviation.
    #[default]
    #[serde(rename = "grpo")]
    Grpo,
    /// Reward minus the mean of the other rewards in the group (arXiv 2402.14740).
    #[serde(rename = "rloo")]
    Rloo,
    /// Reward minus the mean of the step, divided by the standard deviation of the step, both over all tokens trained
    /// on (arXiv 2501.03262). Groups only decide which responses are trained on.
    #[serde(rename = "reinforce++")]
    ReinforcePlusPlus,
    /// Reward minus the reward of a greedy response to the same prompt and image (arXiv 2310.10505). The greedy
    /// response costs one more response per prompt and image and is not trained on.
    #[serde(rename = "remax")]
    Remax,
    /// Reward minus the group's mean (Dr. GRPO, arXiv 2503.20783). For the loss of that paper, also set
    /// `loss.loss_average = "constant"`.
    #[serde(rename = "dr_grpo")]
    DrGrpo,
}

impl Estimator {
    /// Whether advantages need all groups that the step trains on. Otherwise the rewards of one group are enough.
    pub fn is_over_step(self) -> bool {
        self == Self::ReinforcePlusPlus
    }

    /// Whether a reward is compared with the other rewards of its group. The advantage in a group of one is then always
    /// 0.
    pub fn compares_within_group(self) -> bool {
        matches!(self, Self::Grpo | Self::Rloo | Self::DrGrpo)
    }

    /// Whether a greedy response to each prompt and image is needed.
    pub fn wants_greedy(self) -> bool {
        self == Self::Remax
    }

    /// Advantages within one group, in the order of `rewards`. For each of them, `greedy` holds the reward of the
    /// greedy response to the same prompt and image; only ReMax uses it. All are 0 if [`Self::is_over_step`].
    ///
    /// # Errors
    /// Returns an error if a reward is NaN or infinite.
    pub fn within_group(self, rewards: &[f64], greedy: &[f64]) -> Result<Vec<f64>, TrainError> {
        match self {
            Self::Grpo => group_advantages(rewards),
            Self::Rloo => rloo_advantages(rewards),
            Self::Remax => remax_advantages(rewards, greedy),
            Self::DrGrpo => centred_advantages(rewards),
            Self::ReinforcePlusPlus => check(rewards).map(|()| vec![0.0; rewards.len()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::advantage::{reinforce::whitened_advantages, rewards::tests::close};

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
