//! The screen of a run: Burn's dashboard on a terminal, otherwise lines of progress.

use std::time::Instant;

use fieldmark::{
    run::Course,
    train::trainer::{Decoding, DecodingTiming, Sampling, UpdateTiming},
};
use serde::Serialize;

use super::{
    dashboard::{Dashboard, Part},
    progress::Progress,
    pulse::{Pulse, progress},
};
use crate::{signals::Listener, tell::tell};

/// Shows a run.
pub struct Screen {
    stage: &'static str,
    course: Course,
    /// The numbers of the last step.
    message: String,
    /// Lines to print when the dashboard closes.
    held: Vec<String>,
    /// Shown if there is no dashboard.
    progress: Option<Progress>,
    pulse: Pulse,
    dashboard: Option<Dashboard>,
}

impl Screen {
    /// Opens the screen. The dashboard opens only if it is `wanted` and there is a terminal for it.
    ///
    /// # Errors
    /// Returns an error if the system refuses the signal handlers.
    pub fn open(wanted: bool, stage: &'static str, course: Course, listener: &mut Listener) -> std::io::Result<Self> {
        let mut display = Self {
            stage,
            course,
            message: String::new(),
            held: Vec::new(),
            progress: None,
            pulse: Pulse::new(),
            dashboard: if wanted { Dashboard::open(stage, course, listener)? } else { None },
        };
        if display.dashboard.is_none() {
            display.show_progress();
        }
        Ok(display)
    }

    /// Prints a line that stays, on standard error; the dashboard delays it until it closes.
    pub fn note(&mut self, text: String) {
        match &self.progress {
            Some(progress) => progress.note(&text),
            None => {
                self.held.push(text);
                self.count("Notes", 1);
            }
        }
    }

    /// Shows that `done` steps and `updates` updates of the next one are done, with the numbers in `message`.
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

    /// Shows the current phase of the run, on the dashboard only.
    pub fn phase(&self, phase: &str) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.phase(phase);
        }
    }

    /// Shows how far a phase of sampling is.
    pub fn sampling(&mut self, at: &Sampling) {
        match (&self.dashboard, &self.progress) {
            (Some(dashboard), _) if dashboard.is_open() && self.pulse.may_draw(Instant::now()) => {
                dashboard.phase(&progress(at));
            }
            (_, Some(shown)) => {
                let pulse = &mut self.pulse;
                shown.between(|| progress(at), || pulse.line(at, Instant::now()));
            }
            _ => {}
        }
    }

    /// Counts an event, on the dashboard only.
    pub fn count(&self, what: &str, times: usize) {
        if let Some(dashboard) = &self.dashboard {
            dashboard.count(what, times);
        }
    }

    /// Plots the numbers of an update.
    ///
    /// # Errors
    /// Returns an error if they cannot be written as JSON.
    pub fn update(&self, row: &impl Serialize, timing: &UpdateTiming) -> Result<(), fieldmark::RunError> {
        if let Some(dashboard) = &self.dashboard {
            dashboard.row(Part::Update, row, timing)?;
        }
        Ok(())
    }

    /// Plots the numbers of decoded responses.
    ///
    /// # Errors
    /// Returns an error if they cannot be written as JSON.
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

    /// Ends the run.
    pub fn finish(&mut self) {
        self.close();
        if let Some(progress) = &self.progress {
            progress.finish();
        }
    }

    /// Gives the terminal back, then prints the delayed lines and how far the run has come.
    pub fn close(&mut self) {
        if self.dashboard.take().is_some() {
            self.held.drain(..).for_each(|line| tell(format_args!("{line}")));
            tell(format_args!("{:>10} {}/{}  {}", self.stage, self.course.done, self.course.steps, self.message));
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
