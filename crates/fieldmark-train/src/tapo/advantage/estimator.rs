//! The choice of estimator: GRPO (the default), RLOO, ReMax, REINFORCE++, Dr. GRPO, MRN or GDPO.
//!
//! Reference: the estimators of the same names in `core_algos.py` of the released code, here in f64; Dr. GRPO, MRN and
//! GDPO follow their papers. For equal rewards, every estimator that subtracts their mean gives exactly 0.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    dr_grpo::centred_advantages,
    each::each_advantages,
    grpo::group_advantages,
    remax::remax_advantages,
    rewards::{GroupRewards, check},
    rloo::rloo_advantages,
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
    /// Weighted sum of the advantages that `grpo` gives each reward alone: multi-reward normalisation (ReFine-RFT, arXiv
    /// 2601.06993). Each reward then counts as its weight says, however little it varies.
    #[serde(rename = "mrn")]
    Mrn,
    /// The same, then minus the mean of the step and divided by its standard deviation, both over all responses trained
    /// on (GDPO, arXiv 2601.05242). The size of an update then does not depend on the number of rewards.
    #[serde(rename = "gdpo")]
    Gdpo,
}

impl Estimator {
    /// Whether advantages need all groups that the step trains on. Otherwise the rewards of one group are enough.
    pub fn is_over_step(self) -> bool {
        matches!(self, Self::ReinforcePlusPlus | Self::Gdpo)
    }

    /// Whether a reward is compared with the other rewards of its group. The advantage in a group of one is then always
    /// 0.
    pub fn compares_within_group(self) -> bool {
        matches!(self, Self::Grpo | Self::Rloo | Self::DrGrpo | Self::Mrn | Self::Gdpo)
    }

    /// Whether a greedy response to each prompt and image is needed.
    pub fn wants_greedy(self) -> bool {
        self == Self::Remax
    }

    /// Advantages within one group, in the order of its responses. If [`Self::is_over_step`], they are not final:
    /// REINFORCE++ gives 0 until the step is known, GDPO what it then divides.
    ///
    /// # Errors
    /// Returns an error if a reward is NaN or infinite.
    pub fn within_group(self, rewards: &GroupRewards) -> Result<Vec<f64>, TrainError> {
        let GroupRewards { overall, greedy, each } = rewards;
        match self {
            Self::Grpo => group_advantages(overall),
            Self::Rloo => rloo_advantages(overall),
            Self::Remax => remax_advantages(overall, greedy),
            Self::DrGrpo => centred_advantages(overall),
            Self::Mrn | Self::Gdpo => each_advantages(overall.len(), each),
            Self::ReinforcePlusPlus => check(overall).map(|()| vec![0.0; overall.len()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::advantage::{reinforce::whitened_advantages, rewards::tests::close};

    #[test]
    fn each_name_is_its_estimator() {
        let overall = vec![1.0, 0.5, 0.1, 0.0];
        let each = vec![(2.0, vec![1.0, 1.0, 0.0, 0.0])];
        let rewards = GroupRewards { overall, greedy: vec![0.1, 0.1, 1.0, 1.0], each };
        let names = ["grpo", "rloo", "remax", "dr_grpo", "reinforce++", "mrn", "gdpo"];
        let of = |name: &str| serde_json::from_str::<Estimator>(&format!("\"{name}\"")).unwrap();
        let [grpo, rloo, remax, dr_grpo, reinforce, mrn, gdpo] =
            names.map(|name| of(name).within_group(&rewards).unwrap());
        assert_eq!(grpo, group_advantages(&rewards.overall).unwrap());
        close(&rloo, &[0.8, 0.4 / 3.0, -0.4, -1.6 / 3.0]);
        close(&remax, &[0.9, 0.4, -0.9, -1.0]);
        close(&dr_grpo, &[0.6, 0.1, -0.3, -0.4]);
        assert_eq!(reinforce, [0.0; 4]);
        // Unbiased deviation sqrt(4 * 0.25 / 3) of 1, 1, 0, 0; weight 2.
        let one = 2.0 * 0.5 / ((1.0f64 / 3.0).sqrt() + 1e-6);
        close(&mrn, &[one, one, -one, -one]);
        assert_eq!(gdpo, mrn);
        for name in names {
            let steps = ["reinforce++", "gdpo"].contains(&name);
            assert_eq!(of(name).is_over_step(), steps, "{name}");
            assert_eq!(serde_json::to_string(&of(name)).unwrap(), format!("\"{name}\""));
            for bad in [f64::NAN, f64::INFINITY] {
                let (overall, greedy) = (vec![0.0, bad], vec![0.0, 0.0]);
                let rewards = GroupRewards { each: vec![(1.0, overall.clone())], overall, greedy };
                let refused = of(name).within_group(&rewards);
                assert!(matches!(refused, Err(TrainError::NonFiniteReward { index: 1, .. })), "{name}");
            }
        }
        assert!(remax_advantages(&[0.0], &[f64::NAN]).is_err() && whitened_advantages(&[f64::NAN], &[1]).is_err());
        assert_eq!(Estimator::default(), Estimator::Grpo);
    }
}
