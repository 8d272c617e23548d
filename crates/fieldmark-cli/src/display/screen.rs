//! The screen of a run: Burn's dashboard if there is a terminal for it, or lines of progress.

use fieldmark::{
    run::Course,
    train::trainer::{Decoding, DecodingTiming, UpdateTiming},
};
use serde::Serialize;

use super::{
    dashboard::{Dashboard, Part},
    progress::Progress,
};
use crate::signals::Listener;

/// Shows a run.
pub struct Screen {
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

impl Screen {
    /// Begins; the dashboard only where it is wanted and there is a terminal for it.
    ///
    /// # Errors
    /// If the system does not let signals be handled.
    pub fn open(wanted: bool, stage: &'static str, course: Course, listener: &mut Listener) -> std::io::Result<Self> {
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
    pub fn update(&self, row: &impl Serialize, timing: &UpdateTiming) -> Result<(), fieldmark::RunError> {
        if let Some(dashboard) = &self.dashboard {
            dashboard.row(Part::Update, row, timing)?;
        }
        Ok(())
    }

    /// The numbers of decoded responses.
    ///
    /// # Errors
    /// If they are not JSON.
    pub fn decoded(&self, row: &impl Serialize, timing: &DecodingTiming) -> Result<(), fieldmark::RunError> {
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

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}
