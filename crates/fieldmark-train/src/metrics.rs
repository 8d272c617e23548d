//! What a run measures, one JSON object a line in `metrics.jsonl`. Each line is written and flushed whole; a resumed
//! run first removes the rows from its step on, and a last line cut off by a kill. Not-a-number becomes `null`.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, ErrorKind, Write},
    path::{Path, PathBuf},
};

use fieldmark_model::files::write_whole;
use serde::{Deserialize, Serialize};

use crate::{FilterCounts, SamplerGap, TapoParts, TrainError};

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
    /// Updates skipped so far for a non-finite gradient.
    pub skipped: usize,
    /// Wall time of the update, seconds.
    pub seconds: f64,
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
    /// Updates skipped so far for a non-finite gradient.
    pub skipped: usize,
    /// Wall time of the update, seconds.
    pub seconds: f64,
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
    /// Wall time of the rollouts, seconds.
    pub seconds: f64,
}

/// Appends rows to a `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
}

#[derive(Deserialize)]
struct Step {
    step: usize,
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

    /// Continues a file after update `step`: later rows are removed. A missing file is started.
    ///
    /// # Errors
    /// The file cannot be read or written, or a line other than a cut-off last one has no `step`.
    pub fn resume(path: impl AsRef<Path>, step: usize) -> Result<Self, TrainError> {
        let path = path.as_ref().to_path_buf();
        let kept = match File::open(&path) {
            Ok(file) => rows_up_to(BufReader::new(file), &path, step)?,
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            Err(source) => return Err(at(&path, source)),
        };
        write_whole(&path, kept.as_bytes()).map_err(|source| at(&path, source))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(|source| at(&path, source))?;
        Ok(Self { path, file })
    }

    /// Writes one row, which should have a `step`.
    ///
    /// # Errors
    /// The row cannot be written as JSON, or the file cannot be written.
    pub fn write(&mut self, row: &impl Serialize) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(row).map_err(TrainError::MetricsRow)?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(|source| at(&self.path, source))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn at(path: &Path, source: std::io::Error) -> TrainError {
    TrainError::File { path: path.to_path_buf(), source }
}

fn rows_up_to(mut reader: impl BufRead, path: &Path, last: usize) -> Result<String, TrainError> {
    let (mut kept, mut line) = (String::new(), String::new());
    for number in 1.. {
        line.clear();
        let read = reader.read_line(&mut line).map_err(|source| at(path, source))?;
        if read == 0 || !line.ends_with('\n') {
            break;
        }
        let row: Step = serde_json::from_str(&line).map_err(|source| TrainError::MetricsLine {
            path: path.to_path_buf(),
            line: number,
            source,
        })?;
        if row.step <= last {
            kept.push_str(&line);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(step: usize) -> SftMetrics {
        SftMetrics { step, epoch: 0.5, loss: 1.25, lr: 5e-6, grad_norm: 0.75, tokens: 64, skipped: 0, seconds: 0.125 }
    }

    #[test]
    fn a_resumed_file_reads_as_if_never_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut writer = MetricsWriter::create(&path).unwrap();
        (1..=5).for_each(|step| writer.write(&row(step)).unwrap());
        let whole = std::fs::read_to_string(&path).unwrap();
        assert!(whole.starts_with(r#"{"step":1,"epoch":0.5,"loss":1.25,"lr":5e-6,"grad_norm":0.75,"#));

        std::fs::write(&path, format!("{whole}{{\"step\":6,\"ep")).unwrap();
        let mut writer = MetricsWriter::resume(&path, 3).unwrap();
        (4..=5).for_each(|step| writer.write(&row(step)).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), whole);
    }

    #[test]
    fn a_foreign_line_is_named_and_the_file_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"step\":1}\nhello\n").unwrap();
        let refused = MetricsWriter::resume(&path, 1).unwrap_err();
        assert!(matches!(refused, TrainError::MetricsLine { line: 2, .. }), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"step\":1}\nhello\n");
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
            skipped: 0,
            seconds: 1.0,
        };
        let value = serde_json::to_value(&metrics).unwrap();
        assert!(value["loss"].is_null());
        assert_eq!(value["kl_neg"], 0.5);
    }
}
