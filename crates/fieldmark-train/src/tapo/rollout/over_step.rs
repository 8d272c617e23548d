//! Advantages that need all groups of a step: REINFORCE++ whitens over every token that the step trains on, GDPO
//! normalises over every response.

use std::borrow::BorrowMut;

use super::group::Group;
use crate::{
    TrainError,
    tapo::advantage::{Estimator, gdpo_over_step, whitened_advantages},
};

impl Estimator {
    /// Sets the advantages of estimators that need all groups of a step, once for each step. Does nothing for the others.
    ///
    /// # Errors
    /// Returns an error if a reward is NaN or infinite.
    pub(crate) fn over_step(self, groups: &mut [impl BorrowMut<Group>]) -> Result<(), TrainError> {
        if !self.is_over_step() {
            return Ok(());
        }
        let rollouts = || groups.iter().flat_map(|group| &group.borrow().rollouts);
        let advantages = if self == Self::Gdpo {
            gdpo_over_step(&rollouts().map(|rollout| rollout.advantage).collect::<Vec<f64>>())?
        } else {
            let rewards: Vec<f64> = rollouts().map(|rollout| rollout.reward.overall).collect();
            let tokens: Vec<usize> = rollouts().map(|rollout| rollout.response.ids.len()).collect();
            whitened_advantages(&rewards, &tokens)?
        };
        let rollouts = groups.iter_mut().flat_map(|group| &mut group.borrow_mut().rollouts);
        rollouts.zip(advantages).for_each(|(rollout, advantage)| rollout.advantage = advantage);
        Ok(())
    }
}
