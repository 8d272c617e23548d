//! Progress with the time left: a bar on a terminal, otherwise a line at every tenth or, on request, at every step.

use std::{cell::Cell, io::IsTerminal, time::Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::tell::tell;

/// Progress of one stage.
pub struct Progress {
    name: String,
    total: usize,
    bar: Option<ProgressBar>,
    start: Instant,
    /// Steps done before this process.
    before: usize,
    /// Whether every step gets a line.
    lines: bool,
    /// Steps done at the last line.
    printed: Cell<usize>,
}

impl Progress {
    /// Starts a stage of `total` steps.
    pub fn new(name: impl Into<String>, total: usize) -> Self {
        let name = name.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64);
            let style = ProgressStyle::with_template(
                "{prefix:>10} [{bar:30}] {pos}/{len}  {elapsed} elapsed, {eta} left  {msg}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar.set_prefix(name.clone());
            bar
        });
        Self { name, total, bar, start: Instant::now(), before: 0, lines: false, printed: Cell::new(0) }
    }

    /// Prints a line for every step if there is no terminal.
    pub fn lines(mut self) -> Self {
        self.lines = true;
        self
    }

    /// Starts after `done` steps.
    pub fn from(mut self, done: usize) -> Self {
        self.before = done;
        self.printed.set(done);
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
            bar.reset_eta();
        }
        self
    }

    /// Prints a line that stays, on standard error.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => tell(format_args!("{text}")),
        }
    }

    /// Shows how far the work between two steps is: `bar` on a terminal, otherwise the line, if one is due.
    pub fn between(&self, bar: impl FnOnce() -> String, line: impl FnOnce() -> Option<String>) {
        match &self.bar {
            Some(shown) => shown.set_message(bar()),
            None => line().iter().for_each(|line| tell(format_args!("{:>10} {line}", self.name))),
        }
    }

    /// Shows that `done` steps are done, with the numbers in `message`.
    pub fn step(&self, done: usize, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
            bar.set_message(message);
            return;
        }
        let part = |done: usize| if self.lines { done } else { 10 * done / self.total.max(1) };
        if part(done) > part(self.printed.get()) {
            self.printed.set(done);
            let gone = self.start.elapsed().as_secs_f64();
            let left = gone * (self.total - done) as f64 / (done - self.before).max(1) as f64;
            tell(format_args!(
                "{:>10} {done}/{}  {gone:.0} s elapsed, {left:.0} s left  {message}",
                self.name, self.total
            ));
        }
    }

    /// Ends the stage.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish();
        }
    }
}
