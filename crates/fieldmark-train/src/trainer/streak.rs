//! Which samples make an update's loss or gradient not finite. Looked for only after the fact, by computing the update's
//! micro-batches again one at a time, and those at fault sample by sample: an update that goes well pays nothing.

use super::updater::MOST_SKIPPED_IN_A_ROW;
use crate::TrainError;

/// Samples named in an error.
const NAMED: usize = 5;

/// Names of the samples at fault in an update's micro-batches, each once. `look` computes some samples together and names
/// them if what comes out is not finite. Where no sample of a micro-batch is at fault alone, all of it are named.
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

/// The last updates skipped in a row: which samples were at fault, and the trainer's state before the first of them.
#[derive(Debug, Clone)]
pub(crate) struct Streak<S> {
    names: Vec<String>,
    before: Option<S>,
}

impl<S> Streak<S> {
    pub(crate) fn new() -> Self {
        Self { names: Vec::new(), before: None }
    }

    /// The state before the first skipped update; `None` if the last update was not skipped.
    pub(crate) fn before(&self) -> Option<&S> {
        self.before.as_ref()
    }

    /// Adds a skipped update with the samples at fault. `before` makes the state before it.
    pub(crate) fn add(&mut self, names: &[String], before: impl FnOnce() -> S) {
        self.before.get_or_insert_with(before);
        for name in names {
            if !self.names.contains(name) {
                self.names.push(name.clone());
            }
        }
    }

    /// An update was made: the streak is over.
    pub(crate) fn clear(&mut self) {
        self.names.clear();
        self.before = None;
    }

    /// Why the run must stop after update `update` with `count` skipped in a row, if it must.
    pub(crate) fn fault(&self, count: usize, update: usize) -> Option<TrainError> {
        (count >= MOST_SKIPPED_IN_A_ROW).then(|| {
            let mut samples = match self.names.len() {
                0 => "no micro-batch alone".into(),
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

    /// Numbers of which the sum must stay below 100.
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
        assert!(streak.fault(3, 7).unwrap().to_string().contains("no micro-batch alone"));
        let names: Vec<String> = (0..7).map(|i| format!("row {i}")).collect();
        streak.add(&names, || 1);
        streak.add(&names[..1], || 2);
        assert_eq!(streak.before(), Some(&1));
        let text = streak.fault(3, 7).unwrap().to_string();
        assert!(text.contains("3 updates in a row") && text.contains("row 0, row 1, row 2, row 3, row 4 and 2 more"));
        streak.clear();
        assert_eq!(streak.before(), None);
        assert!(!streak.fault(3, 7).unwrap().to_string().contains("row 0"));
    }
}
