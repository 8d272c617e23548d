//! What a run measures, one JSON object a line in `metrics.jsonl`: only what is the same in every run of a recipe (what
//! the clock says is in [`crate::UpdateTiming`]). Each line is written whole; a resumed run first cuts off the rows after
//! its checkpoint, and a last line that a kill left unfinished. Not-a-number becomes `null`.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    TrainError,
    sft::Validation,
    tapo::{
        loss::TapoParts,
        rollout::{FilterCounts, SamplerGap},
    },
};

/// Measurements of one SFT update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SftMetrics {
    /// Update, from 1.
    pub step: usize,
    /// Epochs of data seen, with fraction.
    pub epoch: f64,
    /// Mean loss of the update, nats a token.
    pub loss: f64,
    /// Learning rate used.
    pub lr: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens in the loss.
    pub tokens: usize,
    /// Updates skipped so far for a loss or gradient that was not finite.
    pub skipped: usize,
    /// Samples to which this update's loss or gradient owes that it is not finite; empty where it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_finite: Vec<String>,
    /// What the validation set says of the model after this update; absent where it was not asked.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,
}

/// Measurements of one TAPO update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TapoMetrics {
    /// Update, from 1.
    pub step: usize,
    /// Rollout step the update belongs to, from 1.
    pub rollout_step: usize,
    /// Parts of the loss.
    #[serde(flatten)]
    pub parts: TapoParts,
    /// Learning rate used.
    pub lr: f64,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
    /// Response tokens in the loss.
    pub tokens: usize,
    /// Updates skipped so far for a loss or gradient that was not finite.
    pub skipped: usize,
    /// Samples to which this update's loss or gradient owes that it is not finite; empty where it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_finite: Vec<String>,
}

/// Measurements of the rollouts of one TAPO step, filtered-out groups included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutMetrics {
    /// Update after which these rollouts were drawn.
    pub step: usize,
    /// Rollout step, from 1.
    pub rollout_step: usize,
    /// Mean overall reward.
    pub reward: f64,
    /// Mean accuracy of anchor rollouts: of the reward that the group filter looks at.
    pub accuracy_anchor: f64,
    /// Mean accuracy of positive rollouts.
    pub accuracy_positive: f64,
    /// Mean of each reward, before its weight.
    pub rewards: BTreeMap<String, f64>,
    /// Mean response length, tokens.
    pub response_tokens: f64,
    /// Share of responses cut at the length limit.
    pub truncated: f64,
    /// How far sampler and trainer are apart.
    #[serde(flatten)]
    pub sampler: SamplerGap,
    /// What the group filter did.
    #[serde(flatten)]
    pub groups: FilterCounts,
}

/// Appends rows to a `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

/// How far a run had come when it was saved: what its logs hold up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEnd {
    /// Updates made.
    pub step: usize,
    /// Rollout steps begun (TAPO).
    pub rollout_step: Option<usize>,
}

#[derive(Deserialize)]
struct Place {
    step: Option<usize>,
    rollout_step: Option<usize>,
}

impl LogEnd {
    /// A row belongs to the log if neither of its numbers lies behind the end.
    fn covers(&self, row: &Place) -> bool {
        let within = |found: Option<usize>, end: Option<usize>| found.zip(end).is_none_or(|(found, end)| found <= end);
        within(row.step, Some(self.step)) && within(row.rollout_step, self.rollout_step)
    }
}

impl MetricsWriter {
    /// Starts a new file, replacing one that is there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, TrainError> {
        let path = path.as_ref().to_path_buf();
        let file = File::create(&path).map_err(|source| at(&path, source))?;
        Ok(Self { path, file })
    }

    /// Continues a file after `end`: later rows are cut off. A missing file is started.
    ///
    /// # Errors
    /// The file cannot be read or written, or a line before the end, other than a cut-off last one, has neither `step` nor
    /// `rollout_step`.
    pub fn resume(path: impl AsRef<Path>, end: LogEnd) -> Result<Self, TrainError> {
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
    /// The row cannot be written as JSON, or the file cannot be written.
    pub fn write(&mut self, row: &impl Serialize) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(row).map_err(TrainError::MetricsRow)?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|source| at(&self.path, source))
    }

    /// Waits until what was written is on the disk: before a checkpoint that relies on it appears.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> Result<(), TrainError> {
        self.file.sync_data().map_err(|source| at(&self.path, source))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn at(path: &Path, source: std::io::Error) -> TrainError {
    TrainError::File { path: path.to_path_buf(), source }
}

/// Bytes of the rows that come before the first behind `end`. Rows stand in the order in which they were measured.
fn length_up_to(mut reader: impl BufRead, path: &Path, end: LogEnd) -> Result<u64, TrainError> {
    let (mut kept, mut line) = (0, Vec::new());
    for number in 1.. {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(|source| at(path, source))?;
        if read == 0 || !line.ends_with(b"\n") {
            break;
        }
        let fault = |source| TrainError::MetricsLine { path: path.to_path_buf(), line: number, source };
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
    use crate::tapo::policy::SamplerCorrection;

    fn row(step: usize) -> SftMetrics {
        SftMetrics {
            step,
            epoch: 0.5,
            loss: 1.25,
            lr: 5e-6,
            grad_norm: 0.75,
            tokens: 64,
            skipped: 0,
            non_finite: Vec::new(),
            validation: None,
        }
    }

    fn end(step: usize) -> LogEnd {
        LogEnd { step, rollout_step: None }
    }

    #[test]
    fn a_resumed_file_reads_as_if_never_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::create(&path).unwrap();
        (1..=5).for_each(|step| writer.write(&row(step)).unwrap());
        let whole = std::fs::read_to_string(&path).unwrap();
        assert!(whole.starts_with(r#"{"step":1,"epoch":0.5,"loss":1.25,"lr":5e-6,"grad_norm":0.75,"#));
        assert!(whole.contains(r#""skipped":0}"#));

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
    fn a_validation_stands_in_the_row_of_its_update() {
        let with = SftMetrics { validation: Some(Validation { loss: 0.5, tokens: 7 }), ..row(1) };
        let text = serde_json::to_string(&with).unwrap();
        assert!(text.ends_with(r#""skipped":0,"val_loss":0.5,"val_tokens":7}"#), "{text}");
        for row in [with, row(1)] {
            let text = serde_json::to_string(&row).unwrap();
            assert_eq!(serde_json::from_str::<SftMetrics>(&text).unwrap(), row);
        }
    }

    #[test]
    fn rows_of_a_rollout_step_that_had_not_begun_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        // Two updates a rollout step; a step's first row bears the number of the update before it.
        let rows = [(0, 1), (1, 1), (2, 1), (2, 2), (3, 2), (4, 2), (4, 3)];
        let lines = rows.map(|(step, rollout_step)| format!("{{\"step\":{step},\"rollout_step\":{rollout_step}}}\n"));
        for (step, rollout_step, kept) in [(2, 1, 3), (2, 2, 4), (3, 2, 5), (4, 2, 6), (4, 3, 7), (0, 0, 0)] {
            std::fs::write(&path, lines.concat()).unwrap();
            MetricsWriter::resume(&path, LogEnd { step, rollout_step: Some(rollout_step) }).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), lines[..kept].concat());
        }
        let rollouts = "{\"rollout_step\":1}\n{\"rollout_step\":2}\n";
        std::fs::write(&path, rollouts).unwrap();
        MetricsWriter::resume(&path, LogEnd { step: 9, rollout_step: Some(1) }).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"rollout_step\":1}\n");
    }

    #[test]
    fn a_foreign_line_is_named_and_the_file_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        for foreign in ["hello", "{\"other\":1}"] {
            let text = format!("{{\"step\":1}}\n{foreign}\n");
            std::fs::write(&path, &text).unwrap();
            let refused = MetricsWriter::resume(&path, end(1)).unwrap_err();
            assert!(matches!(refused, TrainError::MetricsLine { line: 2, .. }), "{refused}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn tapo_rows_are_flat() {
        let metrics = TapoMetrics {
            step: 1,
            rollout_step: 1,
            parts: TapoParts { loss: f64::NAN, kl_neg: 0.5, ..Default::default() },
            lr: 1e-6,
            grad_norm: 1.0,
            tokens: 10,
            skipped: 1,
            non_finite: vec!["rows.jsonl:3".into()],
        };
        let value = serde_json::to_value(&metrics).unwrap();
        assert!(value["loss"].is_null());
        assert_eq!(value["kl_neg"], 0.5);
        assert_eq!(value["non_finite"][0], "rows.jsonl:3");
        assert!(value.get("sampler_weight").is_none());

        let sampler = Some(SamplerCorrection { sampler_weight: 1.25, sampler_capped: 0.5 });
        for sampler in [sampler, None] {
            let row = TapoMetrics { parts: TapoParts { sampler, ..Default::default() }, ..metrics.clone() };
            let text = serde_json::to_string(&row).unwrap();
            assert_eq!(text.contains(r#""sampler_weight":1.25,"sampler_capped":0.5,"#), sampler.is_some(), "{text}");
            assert_eq!(serde_json::from_str::<TapoMetrics>(&text).unwrap(), row);
        }
    }
}
