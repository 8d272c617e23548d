//! Advantages that need all groups of a step: REINFORCE++ whitens over every token that the step trains on.

use std::borrow::BorrowMut;

use super::group::Group;
use crate::{
    TrainError,
    tapo::advantage::{Estimator, whitened_advantages},
};

impl Estimator {
    /// Sets the advantages of estimators that need all groups of a step. Does nothing for the others.
    ///
    /// # Errors
    /// Returns an error if a reward is NaN or infinite.
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
