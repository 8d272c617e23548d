//! The progress of a run.

/// The progress of a run. A step is an update of SFT or a rollout step of TAPO; a run can stop after each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// Number of steps of the run.
    pub steps: usize,
    /// Number of steps made.
    pub done: usize,
    /// Number of updates per step.
    per_step: usize,
    /// Number of updates made in the current step.
    updates: usize,
    /// Number of rounds: epochs of SFT, rollout steps of TAPO.
    pub rounds: usize,
}

impl Course {
    /// Progress of SFT: `done` of `updates` updates, in `epochs` epochs of equal length.
    pub fn sft(epochs: usize, updates: usize, done: usize) -> Self {
        Self { steps: updates, done, per_step: 1, updates: 0, rounds: epochs }
    }

    /// Progress of TAPO: `done` of `steps` rollout steps with `updates` updates each.
    pub fn tapo(steps: usize, updates: usize, done: usize) -> Self {
        Self { steps, done, per_step: updates, updates: 0, rounds: steps }
    }

    /// Returns the progress after `done` steps and `updates` updates of the next step.
    pub fn after(self, done: usize, updates: usize) -> Self {
        Self { done, updates, ..self }
    }

    /// Number of updates per round.
    pub fn items(self) -> usize {
        self.steps * self.per_step / self.rounds.max(1)
    }

    /// Index of the current round, from 0.
    pub fn round(self) -> usize {
        (self.all_updates() / self.items().max(1)).min(self.rounds.saturating_sub(1))
    }

    /// Number of updates made in the current round.
    pub fn item(self) -> usize {
        self.all_updates() - self.round() * self.items()
    }

    fn all_updates(self) -> usize {
        self.done * self.per_step + self.updates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epochs_of_sft_are_rounds_of_its_updates() {
        let course = Course::sft(2, 6, 0);
        let places: Vec<_> = (0..=6).map(|done| course.after(done, 0)).map(|c| (c.round(), c.item())).collect();
        assert_eq!(places, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)]);
        assert_eq!(course.items(), 3);
    }

    #[test]
    fn the_steps_of_tapo_are_rounds_of_theirs() {
        let course = Course::tapo(2, 3, 0);
        let place = |done, updates| (course.after(done, updates).round(), course.after(done, updates).item());
        assert_eq!([place(0, 0), place(0, 2), place(0, 3)], [(0, 0), (0, 2), (1, 0)]);
        assert_eq!([place(1, 0), place(1, 1), place(2, 0)], [(1, 0), (1, 1), (1, 3)]);
        assert_eq!(course.items(), 3);
    }
}
