//! Lines about a phase of sampling where there is no terminal: at every tenth, and every half minute.

use std::time::{Duration, Instant};

use fieldmark::train::trainer::{Decoding, Sampling};

/// Tenths that follow each other faster get no line.
const SHORTEST: Duration = Duration::from_secs(1);
/// The longest time without a line.
const LONGEST: Duration = Duration::from_secs(30);

/// Decides when a phase of sampling gets a line.
#[derive(Debug)]
pub struct Pulse {
    phase: Option<(Decoding, usize)>,
    begun: Instant,
    printed: Instant,
    tenth: usize,
    drawn: Instant,
}

impl Pulse {
    /// Creates a pulse before the first phase.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { phase: None, begun: now, printed: now, tenth: 0, drawn: now }
    }

    /// Whether the dashboard may draw again at `now`: once a second.
    pub fn may_draw(&mut self, now: Instant) -> bool {
        let may = now - self.drawn >= SHORTEST;
        self.drawn = if may { now } else { self.drawn };
        may
    }

    /// Returns the line to print at `now`, if one is due.
    pub fn line(&mut self, at: &Sampling, now: Instant) -> Option<String> {
        let phase = Some((at.part, at.rollout_step));
        if self.phase != phase {
            *self = Self { phase, begun: now, printed: now, tenth: 0, ..*self };
        }
        let tenth = 10 * at.responses / at.asked.max(1);
        let since = now - self.printed;
        let is_due = tenth > self.tenth && since >= SHORTEST || since >= LONGEST;
        if !is_due {
            return None;
        }
        (self.printed, self.tenth) = (now, tenth);
        Some(format!("{}, {} tokens, {:.0} s", progress(at), at.tokens, (now - self.begun).as_secs_f64()))
    }
}

/// How far a phase is, such as "step 3: 120/1280 responses".
pub fn progress(at: &Sampling) -> String {
    let Sampling { rollout_step, responses, asked, .. } = at;
    match at.part {
        Decoding::Rollouts => format!("step {rollout_step}: {responses}/{asked} responses"),
        Decoding::Validation => format!("validation after step {rollout_step}: {responses}/{asked} answers"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_has_a_line_at_every_tenth_and_every_half_minute() {
        let mut pulse = Pulse::new();
        let start = Instant::now();
        let mut line = |seconds: f64, step: usize, responses: usize| {
            let part = Decoding::Rollouts;
            let at = Sampling { part, rollout_step: step, responses, asked: 40, tokens: 7 * responses };
            pulse.line(&at, start + Duration::from_secs_f64(seconds))
        };
        assert_eq!(line(0.0, 1, 0), None);
        // A tenth is passed at once, and told when a second is over.
        assert_eq!(line(0.5, 1, 8), None);
        assert_eq!(line(1.5, 1, 8).unwrap(), "step 1: 8/40 responses, 56 tokens, 2 s");
        assert_eq!(line(20.0, 1, 11), None);
        assert!(line(21.0, 1, 12).is_some());
        // Nothing ends for a long time.
        assert_eq!(line(50.0, 1, 12), None);
        assert!(line(51.5, 1, 12).is_some());
        assert_eq!(line(52.0, 1, 12), None);
        // The next step is another phase.
        assert_eq!(line(100.0, 2, 20), None);
        assert!(line(101.0, 2, 20).unwrap().ends_with(", 1 s"));
    }
}
