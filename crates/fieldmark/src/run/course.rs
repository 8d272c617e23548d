//! How far a run has come.

/// How far a run has come. A step is what it can stop after: an update of SFT, a rollout step of TAPO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Course {
    /// Steps of the run.
    pub steps: usize,
    /// Steps made.
    pub done: usize,
    /// Updates of a step.
    per_step: usize,
    /// Updates made of the step that is not at its end.
    updates: usize,
    /// Epochs of SFT, rollout steps of TAPO.
    pub rounds: usize,
}

impl Course {
    /// `done` of `updates` updates in `epochs` epochs of the same length.
    pub fn sft(epochs: usize, updates: usize, done: usize) -> Self {
        Self { steps: updates, done, per_step: 1, updates: 0, rounds: epochs }
    }

    /// `done` of `steps` rollout steps with `updates` updates each.
    pub fn tapo(steps: usize, updates: usize, done: usize) -> Self {
        Self { steps, done, per_step: updates, updates: 0, rounds: steps }
    }

    /// The same after `done` steps and `updates` updates of the next.
    pub fn after(self, done: usize, updates: usize) -> Self {
        Self { done, updates, ..self }
    }

    /// Updates of a round.
    pub fn items(self) -> usize {
        self.steps * self.per_step / self.rounds.max(1)
    }

    /// The round that is being made, from 0.
    pub fn round(self) -> usize {
        (self.all_updates() / self.items().max(1)).min(self.rounds.saturating_sub(1))
    }

    /// Updates made of that round.
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
