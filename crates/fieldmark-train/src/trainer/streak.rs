//! Finds the samples that make the loss or gradient of an update not finite, and counts skipped updates. The search
//! runs only after such an update: it computes the micro-batches again one at a time, and the failing ones sample by
//! sample.

use super::updater::MOST_SKIPPED_IN_A_ROW;
use crate::TrainError;

/// Largest number of samples that an error names.
const NAMED: usize = 5;

/// Names the samples at fault in the micro-batches of an update, each once. `look` computes some samples together and
/// returns their names if the result is not finite. If a micro-batch fails but none of its samples fails alone, all are
/// named.
pub(crate) fn culprits<T>(
    micros: &[&[T]],
    look: impl Fn(&[T]) -> Result<Option<Vec<String>>, TrainError>,
) -> Result<Vec<String>, TrainError> {
    let mut found: Vec<String> = Vec::new();
    for micro in micros {
        let Some(together) = look(micro)? else { continue };
        let alone: Vec<String> =
            micro.chunks(1).map(&look).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().flatten().collect();
        for name in if alone.is_empty() { together } else { alone } {
            if !found.contains(&name) {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// The updates skipped in a row up to now: the samples at fault and the trainer's state before the first skipped
/// update.
#[derive(Debug, Clone)]
pub(crate) struct Streak<S> {
    names: Vec<String>,
    before: Option<S>,
}

impl<S> Streak<S> {
    pub(crate) fn new() -> Self {
        Self { names: Vec::new(), before: None }
    }

    /// Returns the state before the first skipped update, or `None` if the last update was not skipped.
    pub(crate) fn before(&self) -> Option<&S> {
        self.before.as_ref()
    }

    /// Adds a skipped update with the samples at fault. `before` makes the trainer's state before this update.
    pub(crate) fn add(&mut self, names: &[String], before: impl FnOnce() -> S) {
        self.before.get_or_insert_with(before);
        for name in names {
            if !self.names.contains(name) {
                self.names.push(name.clone());
            }
        }
    }

    /// Ends the streak after an update that was not skipped.
    pub(crate) fn clear(&mut self) {
        self.names.clear();
        self.before = None;
    }

    /// Returns an error if the run must stop after update `update`, with `count` updates skipped in a row.
    pub(crate) fn fault(&self, count: usize, update: usize) -> Option<TrainError> {
        (count >= MOST_SKIPPED_IN_A_ROW).then(|| {
            let mut samples = match self.names.len() {
                0 => "no single micro-batch".into(),
                n => self.names[..n.min(NAMED)].join(", "),
            };
            if self.names.len() > NAMED {
                samples.push_str(&format!(" and {} more", self.names.len() - NAMED));
            }
            TrainError::Diverged { count, update, samples }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names the numbers if their sum is at least 100.
    fn look(items: &[u32]) -> Result<Option<Vec<String>>, TrainError> {
        Ok((items.iter().sum::<u32>() >= 100).then(|| items.iter().map(u32::to_string).collect()))
    }

    #[test]
    fn samples_at_fault_alone_are_named_and_else_their_micro_batch() {
        let found = |items: &[u32]| culprits(&items.chunks(2).collect::<Vec<_>>(), look).unwrap();
        assert!(found(&[1, 2, 3]).is_empty());
        assert_eq!(found(&[1, 200, 3, 4, 300]), ["200", "300"]);
        assert_eq!(found(&[60, 70, 1, 2]), ["60", "70"]);
        assert_eq!(found(&[200, 1, 200, 1]), ["200"]);
    }

    #[test]
    fn a_fault_names_a_few_samples() {
        let mut streak = Streak::new();
        assert!(streak.fault(2, 7).is_none());
        let fault = |streak: &Streak<i32>| match streak.fault(3, 7) {
            Some(TrainError::Diverged { count: 3, update: 7, samples }) => samples,
            other => panic!("{other:?}"),
        };
        assert!(!fault(&streak).contains("row"));
        let names: Vec<String> = (0..7).map(|i| format!("row {i}")).collect();
        streak.add(&names, || 1);
        streak.add(&names[..1], || 2);
        assert_eq!(streak.before(), Some(&1));
        let samples = fault(&streak);
        let rest = samples.strip_prefix("row 0, row 1, row 2, row 3, row 4 ");
        assert!(rest.is_some_and(|rest| rest.contains('2') && !rest.contains("row")), "{samples}");
        streak.clear();
        assert_eq!(streak.before(), None);
        assert!(!fault(&streak).contains("row 0"));
    }
}
