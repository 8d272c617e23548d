//! Shows a run of `sft` or `tapo` from its events.

use fieldmark::{
    RunError,
    run::{Course, Observer, RunEvent},
    train::{
        params::Trainable,
        tapo::RolloutMetrics,
        trainer::{Interrupt, TrainEvent},
    },
};

use super::{curves::draw_curves, progress::Progress, screen::Screen};
use crate::{signals::Listener, tell::tell};

/// The stage that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// SFT.
    Sft,
    /// TAPO, with the names of its rewards.
    Tapo(Vec<String>),
}

impl Shown {
    fn name(&self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Tapo(_) => "tapo",
        }
    }

    /// The unit that a run finishes before it stops.
    fn boundary(&self) -> &'static str {
        match self {
            Self::Sft => "update",
            Self::Tapo(_) => "rollout step, or now if responses are being sampled",
        }
    }
}

/// Shows a run.
pub struct RunDisplay {
    shown: Shown,
    dashboard: bool,
    interrupt: Interrupt,
    check: Option<Progress>,
    screen: Option<(Screen, Listener)>,
    course: Option<Course>,
    /// The numbers of the step's rollouts, of its last update, and of its validation.
    drawn: String,
    update: String,
    validation: String,
    /// Updates done in the step.
    updates: usize,
}

impl RunDisplay {
    /// Creates a display. `dashboard` allows Burn's dashboard if there is a terminal for it.
    pub fn new(shown: Shown, dashboard: bool, interrupt: Interrupt) -> Self {
        Self {
            shown,
            dashboard,
            interrupt,
            check: None,
            screen: None,
            course: None,
            drawn: String::new(),
            update: String::new(),
            validation: String::new(),
            updates: 0,
        }
    }

    /// Closes the screen; to be called before anything is written to standard output.
    pub fn finish(&mut self) {
        if let Some((screen, _)) = &mut self.screen {
            screen.close();
        }
    }

    fn message(&self) -> String {
        format!("{}{}{}", self.drawn, self.update, self.validation)
    }

    fn begin(&mut self, course: Course) -> std::io::Result<()> {
        let mut listener = Listener::new(self.shown.boundary(), self.interrupt.clone())?;
        let screen = Screen::open(self.dashboard, self.shown.name(), course, &mut listener)?;
        (self.screen, self.course) = (Some((screen, listener)), Some(course));
        Ok(())
    }

    /// Shows that a step begins or has ended.
    fn step(&mut self, course: Course, begins: bool) {
        let message = self.message();
        let phase = (begins && self.shown != Shown::Sft).then(|| format!("step {}: rollouts", course.done + 1));
        (self.course, self.updates) = (Some(course), 0);
        let Some((screen, _)) = &mut self.screen else { return };
        match phase {
            Some(phase) => screen.phase(&phase),
            None if !begins => screen.step(course.done, 0, message),
            None => {}
        }
    }

    fn train(&mut self, event: TrainEvent<'_>) -> Result<(), RunError> {
        match event {
            TrainEvent::SftUpdate(row, timing) => {
                let held = row.validation.map(|found| format!("  validation {:.4}", found.loss)).unwrap_or_default();
                self.update = format!("loss {:.4}  lr {:.2e}{held}", row.loss, row.lr);
                self.note_skipped(row.step, row.grad_norm, row.loss, &row.non_finite);
                let Some((screen, _)) = &mut self.screen else { return Ok(()) };
                screen.step(row.step, 0, self.update.clone());
                screen.update(row, timing)
            }
            TrainEvent::Sampling(at) => {
                if let Some((screen, _)) = &mut self.screen {
                    screen.sampling(at);
                }
                Ok(())
            }
            TrainEvent::Finding(found) => {
                if let Some((screen, _)) = &mut self.screen {
                    screen.note(format!("note: {found}"));
                }
                Ok(())
            }
            TrainEvent::Rollouts(groups, _) => {
                if let Some((screen, _)) = &self.screen {
                    screen.count("Groups drawn", groups.len());
                }
                Ok(())
            }
            TrainEvent::Drawn(row, timing) => {
                self.update.clear();
                self.drawn = drawn(row);
                let (message, place) = (self.message(), row.rollout_step);
                let Some((screen, _)) = &mut self.screen else { return Ok(()) };
                screen.step(place - 1, 0, message);
                screen.phase(&format!("step {place}: updates"));
                screen.decoded(row, timing)
            }
            TrainEvent::TapoUpdate(row, timing) => {
                self.note_skipped(row.step, row.grad_norm, row.parts.loss, &row.non_finite);
                self.update = format!("  loss {:.4}  lr {:.2e}", row.parts.loss, row.lr);
                self.updates += 1;
                let message = self.message();
                let Some((screen, _)) = &mut self.screen else { return Ok(()) };
                screen.step(row.rollout_step - 1, self.updates, message);
                screen.update(row, timing)
            }
            TrainEvent::Validation(_, row, timing) => {
                self.validation = format!("  validation {:.3}", row.reward);
                let Some((screen, _)) = &mut self.screen else { return Ok(()) };
                screen.decoded(row, timing)
            }
        }
    }

    /// Names the samples of an update that was skipped.
    fn note_skipped(&mut self, update: usize, norm: f64, loss: f64, samples: &[String]) {
        if loss.is_finite() && norm.is_finite() {
            return;
        }
        let named = if samples.is_empty() { "no single micro-batch is the cause".into() } else { samples.join(", ") };
        if let Some((screen, _)) = &mut self.screen {
            screen.note(format!(
                "update {update} skipped: its loss or gradient is not finite (loss {loss}, gradient norm {norm}); samples: \
                 {named}"
            ));
        }
    }
}

impl Observer for RunDisplay {
    fn event(&mut self, event: RunEvent<'_>) -> Result<(), RunError> {
        match event {
            RunEvent::Note(text) => tell(format_args!("note: {text}")),
            RunEvent::Checked { done, total } => {
                let check = self.check.get_or_insert_with(|| Progress::new("check data", total));
                check.step(done, String::new());
                if done == total {
                    check.finish();
                }
            }
            RunEvent::Trainable(kinds) => print_trainable(kinds),
            RunEvent::Example { name, text, tokens } => {
                tell(format_args!("first sample, {name}, {tokens} tokens:\n{}", shortened(text)));
            }
            RunEvent::Begin(course) => self.begin(course).map_err(RunError::observer)?,
            RunEvent::Step(course) => self.step(course, true),
            RunEvent::Train(event) => self.train(event)?,
            RunEvent::Stepped(course) => self.step(course, false),
            RunEvent::Trained(folder) => {
                if let Some((screen, _)) = &mut self.screen {
                    screen.finish();
                }
                draw_curves(&self.shown, folder);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The numbers of a step's rollouts.
fn drawn(row: &RolloutMetrics) -> String {
    // The mean of a role without rollouts is NaN; so are both if carried-over groups fill the step.
    let right: Vec<f64> =
        [row.accuracy_anchor, row.accuracy_positive].into_iter().filter(|share| share.is_finite()).collect();
    if right.is_empty() {
        return format!("{} groups carried over", row.groups.carried_in);
    }
    let share = right.iter().sum::<f64>() / right.len() as f64;
    format!("reward {:.3}  accuracy {share:.2}  kept {}/{}", row.reward, row.groups.kept, row.groups.offered)
}

/// Most characters of an example at its start, and at its end.
const SHOWN: (usize, usize) = (1500, 500);

/// The text without its middle if it is long, and without control characters, which could change the terminal.
fn shortened(text: &str) -> String {
    let safe = |c: char| if c.is_control() && c != '\n' { '\u{fffd}' } else { c };
    let all: Vec<char> = text.chars().map(safe).collect();
    let (start, end) = SHOWN;
    if all.len() <= start + end {
        return all.into_iter().collect();
    }
    let (first, last) = (&all[..start], &all[all.len() - end..]);
    let left_out = all.len() - start - end;
    let [first, last] = [first, last].map(|part| part.iter().collect::<String>());
    format!("{first} [... {left_out} characters ...] {last}")
}

/// Prints how much of each part of the model learns, on standard error.
fn print_trainable(kinds: &[Trainable]) {
    let row = |name: &str, parameters: usize, learning: usize| {
        let share = 100.0 * learning as f64 / parameters.max(1) as f64;
        tell(format_args!("{name:<22} {parameters:>14} {learning:>14} {share:>8.2} %"));
    };
    tell(format_args!("{:<22} {:>14} {:>14} {:>10}", "part", "parameters", "trainable", "share"));
    for kind in kinds {
        let adapters = if kind.adapters { ", adapters" } else { "" };
        row(&format!("{}{adapters}", kind.part.name()), kind.parameters, kind.learning);
    }
    let sum = |count: fn(&Trainable) -> usize| kinds.iter().map(count).sum();
    row("all", sum(|kind| kind.parameters), sum(|kind| kind.learning));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_example_loses_its_middle() {
        assert_eq!(shortened("<|im_start|>a\nb\u{1b}[2J"), "<|im_start|>a\nb\u{fffd}[2J");
        let long: String = (0..2500).map(|i| if i < 2000 { 'ä' } else { 'z' }).collect();
        let short = shortened(&long);
        assert_eq!((short.matches('ä').count(), short.matches('z').count()), (1500, 500));
        assert!(short.contains(" 500 "), "{short}");
    }
}
