//! `metrics.jsonl`: the measurements of a run, one JSON object per line. Two runs of a recipe write the same rows;
//! times are in `timings.jsonl` ([`UpdateTiming`](fieldmark_train::trainer::UpdateTiming)). Each line is written at
//! once. A resumed run first removes the rows after its checkpoint, and a last line that a killed run left unfinished.
//! NaN and infinity become `null`.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, ErrorKind, Write},
    path::{Path, PathBuf},
};

use fieldmark_train::{sft::SftState, tapo::TapoState};
use serde::{Deserialize, Serialize};

use crate::error::RunError;

/// Appends rows to a JSON Lines file such as `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

/// The position of a run when it was saved. A resumed run keeps the log rows up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// Number of updates made.
    pub step: usize,
    /// Number of rollout steps begun (TAPO).
    pub rollout_step: Option<usize>,
    /// True if the validation set is still to be scored at this position (TAPO): a row about it is removed.
    pub unscored: bool,
}

#[derive(Deserialize)]
struct Place {
    step: Option<usize>,
    rollout_step: Option<usize>,
    /// Only rows of `metrics.jsonl` about a validation have it.
    val_answers: Option<usize>,
    /// What a row of `timings.jsonl` is about.
    part: Option<String>,
}

impl Place {
    fn is_validation(&self) -> bool {
        self.val_answers.is_some() || self.part.as_deref() == Some("validation")
    }
}

impl From<&SftState> for LogEnd {
    fn from(state: &SftState) -> Self {
        // The row of an update whose validation was stopped is not written yet.
        let step = state.updates.done - usize::from(state.unscored.is_some());
        Self { step, rollout_step: None, unscored: false }
    }
}

impl From<&TapoState> for LogEnd {
    fn from(state: &TapoState) -> Self {
        let rollout_step = Some(state.step + usize::from(state.open.is_some()));
        Self { step: state.updates.done, rollout_step, unscored: state.unscored }
    }
}

impl LogEnd {
    /// Returns true if neither number of the row is after the end.
    fn covers(&self, row: &Place) -> bool {
        let within = |found: Option<usize>, end: Option<usize>| found.zip(end).is_none_or(|(found, end)| found <= end);
        let again = self.unscored && row.is_validation() && row.rollout_step == self.rollout_step;
        within(row.step, Some(self.step)) && within(row.rollout_step, self.rollout_step) && !again
    }

    /// Returns the end of `validation.jsonl`, whose rows are all about validations. `None` if nothing of it is kept.
    pub(super) fn of_answers(self) -> Option<Self> {
        match self.rollout_step {
            Some(steps) if self.unscored => Some(Self { rollout_step: Some(steps.checked_sub(1)?), ..self }),
            _ => Some(self),
        }
    }
}

impl MetricsWriter {
    /// Starts a new file and replaces an existing one.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, RunError> {
        let path = path.as_ref().to_path_buf();
        let file = File::create(&path).map_err(|source| at(&path, source))?;
        Ok(Self { path, file })
    }

    /// Starts a new file, or continues a file after `end`.
    ///
    /// # Errors
    /// Returns the errors of [`Self::create`] or [`Self::resume`].
    pub fn open(path: impl AsRef<Path>, end: Option<LogEnd>) -> Result<Self, RunError> {
        match end {
            Some(end) => Self::resume(path, end),
            None => Self::create(path),
        }
    }

    /// Continues a file after `end` and removes later rows. Creates the file if it is missing.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or written, or if a line up to the end has neither `step` nor
    /// `rollout_step`. An unfinished last line is not an error.
    pub fn resume(path: impl AsRef<Path>, end: LogEnd) -> Result<Self, RunError> {
        let path = path.as_ref().to_path_buf();
        let kept = match File::open(&path) {
            Ok(file) => length_up_to(BufReader::new(file), &path, end)?,
            Err(e) if e.kind() == ErrorKind::NotFound => 0,
            Err(source) => return Err(at(&path, source)),
        };
        let file = OpenOptions::new().append(true).create(true).open(&path).map_err(|source| at(&path, source))?;
        file.set_len(kept).map_err(|source| at(&path, source))?;
        Ok(Self { path, file })
    }

    /// Writes one row, which should have a `step`, a `rollout_step`, or both.
    ///
    /// # Errors
    /// Returns an error if the row cannot be written as JSON, or if the file cannot be written.
    pub fn write(&mut self, row: &impl Serialize) -> Result<(), RunError> {
        let mut line = serde_json::to_string(row).map_err(RunError::LogRow)?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|source| at(&self.path, source))
    }

    /// Waits until the rows are on disk. Call it before saving a checkpoint, which relies on them.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub fn sync(&self) -> Result<(), RunError> {
        self.file.sync_data().map_err(|source| at(&self.path, source))
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn at(path: &Path, source: std::io::Error) -> RunError {
    RunError::Io { path: path.to_path_buf(), source }
}

/// Number of bytes before the first row after `end`. Rows are in the order of measurement.
fn length_up_to(mut reader: impl BufRead, path: &Path, end: LogEnd) -> Result<u64, RunError> {
    let (mut kept, mut line) = (0, Vec::new());
    for number in 1.. {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(|source| at(path, source))?;
        if read == 0 || !line.ends_with(b"\n") {
            break;
        }
        let fault = |source| RunError::LogLine { path: path.to_path_buf(), line: number, source };
        let row: Place = serde_json::from_slice(&line).map_err(fault)?;
        if row.step.is_none() && row.rollout_step.is_none() {
            return Err(fault(serde::de::Error::missing_field("step")));
        }
        if !end.covers(&row) {
            break;
        }
        kept += read as u64;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        step: usize,
        loss: f64,
    }

    fn row(step: usize) -> Row {
        Row { step, loss: 1.25 }
    }

    fn end(step: usize) -> LogEnd {
        LogEnd { step, rollout_step: None, unscored: false }
    }

    #[test]
    fn a_resumed_file_reads_as_if_never_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::create(&path).unwrap();
        (1..=5).for_each(|step| writer.write(&row(step)).unwrap());
        let whole = std::fs::read_to_string(&path).unwrap();
        assert!(whole.starts_with("{\"step\":1,\"loss\":1.25}\n"), "{whole}");

        // Killed in the middle of a line, even within a character.
        for torn in [&b"{\"step\":6,\"ep"[..], b"{\"step\":6,\"x\":\"\xc3", b"not JSON"] {
            std::fs::write(&path, [whole.as_bytes(), torn].concat()).unwrap();
            let mut writer = MetricsWriter::resume(&path, end(3)).unwrap();
            (4..=5).for_each(|step| writer.write(&row(step)).unwrap());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
            std::fs::write(&path, [whole.as_bytes(), torn].concat()).unwrap();
            MetricsWriter::resume(&path, end(5)).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
        }
    }

    #[test]
    fn rows_of_a_rollout_step_that_had_not_begun_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        // Two updates per rollout step. The first row of a step has the number of the update before it.
        let rows = [(0, 1), (1, 1), (2, 1), (2, 2), (3, 2), (4, 2), (4, 3)];
        let lines = rows.map(|(step, rollout_step)| format!("{{\"step\":{step},\"rollout_step\":{rollout_step}}}\n"));
        for (step, rollout_step, kept) in [(2, 1, 3), (2, 2, 4), (3, 2, 5), (4, 2, 6), (4, 3, 7), (0, 0, 0)] {
            std::fs::write(&path, lines.concat()).unwrap();
            MetricsWriter::resume(&path, LogEnd { step, rollout_step: Some(rollout_step), unscored: false }).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), lines[..kept].concat());
        }
        let rollouts = "{\"rollout_step\":1}\n{\"rollout_step\":2}\n";
        std::fs::write(&path, rollouts).unwrap();
        MetricsWriter::resume(&path, LogEnd { step: 9, rollout_step: Some(1), unscored: false }).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"rollout_step\":1}\n");
    }

    #[test]
    fn a_validation_that_is_made_again_leaves_its_earlier_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let rows = [
            "{\"step\":0,\"rollout_step\":0,\"val_answers\":2}\n",
            "{\"step\":2,\"rollout_step\":1}\n",
            "{\"step\":2,\"rollout_step\":1,\"val_answers\":2}\n",
        ];
        let timings = rows.map(|row| row.replace("\"val_answers\":2", "\"part\":\"validation\""));
        for (unscored, kept) in [(false, 3), (true, 2)] {
            let end = LogEnd { step: 2, rollout_step: Some(1), unscored };
            for lines in [rows.map(str::to_owned), timings.clone()] {
                std::fs::write(&path, lines.concat()).unwrap();
                MetricsWriter::resume(&path, end).unwrap();
                assert_eq!(std::fs::read_to_string(&path).unwrap(), lines[..kept].concat());
            }
            assert_eq!(end.of_answers().unwrap().rollout_step, Some(if unscored { 0 } else { 1 }));
        }
        assert_eq!(LogEnd { step: 0, rollout_step: Some(0), unscored: true }.of_answers(), None);
    }

    #[test]
    fn a_foreign_line_is_named_and_the_file_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        for foreign in ["hello", "{\"other\":1}"] {
            let text = format!("{{\"step\":1}}\n{foreign}\n");
            std::fs::write(&path, &text).unwrap();
            let refused = MetricsWriter::resume(&path, end(1)).unwrap_err();
            assert!(matches!(refused, RunError::LogLine { line: 2, .. }), "{refused}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
