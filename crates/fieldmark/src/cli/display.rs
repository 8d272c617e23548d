//! How a run is shown while it goes on: Burn's dashboard on a terminal, or progress with a line a step.

use fieldmark::{
    progress::Progress,
    train::{Decoding, DecodingTiming, TrainError, UpdateTiming},
};
use serde::Serialize;

use super::{
    dashboard::{Dashboard, Part},
    interrupt::Listener,
};

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

/// Shows a run.
pub struct Display {
    stage: &'static str,
    course: Course,
    /// How the last step went.
    message: String,
    /// Lines that wait until the dashboard is closed.
    held: Vec<String>,
    /// Where there is no dashboard.
    progress: Option<Progress>,
    dashboard: Option<Dashboard>,
}

impl Display {
    /// Begins; the dashboard only where it is wanted and there is a terminal for it.
    ///
    /// # Errors
    /// If the system does not let signals be handled.
    pub fn open(wanted: bool, stage: &'static str, course: Course, listener: &mut Listener) -> anyhow::Result<Self> {
        let mut display = Self {
            stage,
            course,
            message: String::new(),
            held: Vec::new(),
            progress: None,
            dashboard: if wanted { Dashboard::open(stage, course, listener)? } else { None },
        };
        if display.dashboard.is_none() {
            display.show_progress();
        }
        Ok(display)
    }

    /// A line that stays, on standard error.
    pub fn note(&mut self, text: String) {
        match &self.progress {
            Some(progress) => progress.note(&text),
            None => {
                self.held.push(text);
                self.count("Notes", 1);
            }
        }
    }

    /// `done` steps and `updates` updates of the next are over; `message` says how it goes.
    pub fn step(&mut self, done: usize, updates: usize, message: String) {
        self.course = self.course.after(done, updates);
        match &self.dashboard {
            Some(dashboard) if dashboard.is_open() => dashboard.at(self.course),
            Some(_) => {
                self.close();
                self.show_progress();
            }
            None => {}
        }
        if let Some(progress) = &self.progress {
            progress.step(done, message.clone());
        }
        self.message = message;
    }

    /// What the run is in the middle of; said on the dashboard alone.
    pub fn phase(&self, phase: &str) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.phase(phase);
        }
    }

    /// Counts something that happened; on the dashboard alone.
    pub fn count(&self, what: &str, times: usize) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.count(what, times);
        }
    }

    /// The numbers of an update.
    ///
    /// # Errors
    /// If they are not JSON.
    pub fn update(&self, row: &impl Serialize, timing: &UpdateTiming) -> Result<(), TrainError> {
        if let Some(dashboard) = &self.dashboard {
            dashboard.row(Part::Update, row, timing)?;
        }
        Ok(())
    }

    /// The numbers of decoded responses.
    ///
    /// # Errors
    /// If they are not JSON.
    pub fn decoded(&self, row: &impl Serialize, timing: &DecodingTiming) -> Result<(), TrainError> {
        let part = match timing.part {
            Decoding::Rollouts => Part::Rollouts,
            Decoding::Validation => Part::Validation,
        };
        if let Some(dashboard) = &self.dashboard {
            dashboard.row(part, row, timing)?;
        }
        Ok(())
    }

    /// The run is at its end.
    pub fn finish(&mut self) {
        self.close();
        if let Some(progress) = &self.progress {
            progress.finish();
        }
    }

    /// Gives the terminal back and says what waited for that, and where the run stands.
    pub fn close(&mut self) {
        if self.dashboard.take().is_some() {
            self.held.drain(..).for_each(|line| eprintln!("{line}"));
            eprintln!("{:>10} {}/{}  {}", self.stage, self.course.done, self.course.steps, self.message);
        }
    }

    fn show_progress(&mut self) {
        self.progress = Some(Progress::new(self.stage, self.course.steps).lines().from(self.course.done));
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        self.close();
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
