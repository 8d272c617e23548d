//! Reads a predictions file for scoring, and refuses what would make its scores wrong: rows that contradict themselves,
//! a question that is answered twice, and rows of two evaluations.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use fieldmark_data::{DataError, ReadLimits, Split, alike_options, normal_form, read_records};
use serde_json::Value;

use crate::closed_world::OptionOrder;
use crate::error::EvalError;
use crate::predictions::{Prediction, RunSettings};
use crate::question::{Question, World};

/// The rows of a predictions file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Predictions {
    /// The whole rows, in order.
    pub rows: Vec<Prediction>,
    /// The last row of the file, counted from 1, if the file ends in the middle of it. It is not among `rows`.
    pub torn: Option<usize>,
}

/// Reads a predictions file, plain or gzipped. A file that is still being written, or whose process was killed, may end in
/// the middle of a row; [`Predictions::torn`] then names that row.
///
/// # Errors
/// Returns [`EvalError::Data`] if the file cannot be read, [`EvalError::Prediction`] for the first row that is invalid
/// or answers the question of an earlier row, and [`EvalError::TwoRuns`] for the first row of another model or of other
/// settings than the first row has. The device may differ.
pub fn read_predictions(path: &Path) -> Result<Predictions, EvalError> {
    let mut records = read_records(path, ReadLimits::default())?;
    let torn = match records.rows.last() {
        Some(Err(DataError::Row { row, .. })) if has_no_last_end(path) => Some(*row),
        _ => None,
    };
    if torn.is_some() {
        records.rows.pop();
    }
    let mut evaluation = OneEvaluation::default();
    let rows = records.rows.into_iter().map(|record| {
        let record = record?;
        let wrong = |problem| EvalError::Prediction { file: path.to_path_buf(), row: record.row, problem };
        let prediction: Prediction = serde_json::from_value(record.value).map_err(|error| wrong(error.to_string()))?;
        if let Some(problem) = contradiction(&prediction.question) {
            return Err(wrong(problem));
        }
        evaluation.admit(path, record.row, &prediction)?;
        Ok(prediction)
    });
    Ok(Predictions { rows: rows.collect::<Result<_, _>>()?, torn })
}

/// Returns true if the last line of a file has no end.
fn has_no_last_end(path: &Path) -> bool {
    let mut last = [0];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)
    });
    read.is_ok() && last != *b"\n"
}

/// Returns the contradiction in a question, if there is one.
fn contradiction(question: &Question) -> Option<String> {
    let truth = normal_form(&question.ground_truth);
    match (question.world, question.option_order) {
        (World::Closed, _) if !question.options.iter().any(|option| normal_form(option) == truth) => Some(format!(
            "`ground_truth` is {:?}, which is not among the options of a closed-world question",
            question.ground_truth
        )),
        (World::Closed, None) => Some("a closed-world question without `option_order`".into()),
        (World::Closed, _) if alike_options(&question.options).is_some() => {
            Some(format!("the `options` {:?} have two that scoring cannot tell apart", question.options))
        }
        (World::Open, _) if !question.options.is_empty() => Some("an open-world question with `options`".into()),
        _ if question.ground_truth.trim().is_empty() => Some("`ground_truth` is empty".into()),
        _ => None,
    }
}

/// What tells the questions of an evaluation apart. One row of data is asked in both worlds, and in several orders of its
/// options.
type Name = (World, Split, String, Option<String>, usize, Option<OptionOrder>);

/// The rows so far, which must be of one evaluation: its scores are means over its questions, so that a doubled row or a
/// row of another model would count as if it were one more question.
#[derive(Default)]
struct OneEvaluation {
    first: Option<(usize, RunSettings)>,
    asked: BTreeMap<Name, usize>,
}

impl OneEvaluation {
    fn admit(&mut self, path: &Path, row: usize, prediction: &Prediction) -> Result<(), EvalError> {
        let (first_row, first) = self.first.get_or_insert_with(|| (row, prediction.settings.clone()));
        if let Some((key, first, here)) = difference(first, &prediction.settings) {
            return Err(EvalError::TwoRuns { file: path.into(), row, key, here, first, first_row: *first_row });
        }
        let question = &prediction.question;
        let (dataset, file) = (question.dataset.clone(), question.file.clone());
        let name = (question.world, question.split, dataset, file, question.row, question.option_order);
        match self.asked.insert(name, row) {
            None => Ok(()),
            Some(earlier) => Err(EvalError::Prediction {
                file: path.into(),
                row,
                problem: format!(
                    "answers the same question as row {earlier} ({}, {} world), which would count twice",
                    question.name(),
                    question.world
                ),
            }),
        }
    }
}

/// Returns the first setting that differs, with its two values as JSON. The device does not count, because an evaluation may go
/// on on another one.
fn difference(first: &RunSettings, here: &RunSettings) -> Option<(String, String, String)> {
    let here = RunSettings { device: first.device.clone(), ..here.clone() };
    if *first == here {
        return None;
    }
    let (Ok(Value::Object(first)), Ok(Value::Object(mut here))) =
        (serde_json::to_value(first), serde_json::to_value(here))
    else {
        return None;
    };
    let mut pairs = first.into_iter().filter_map(|(key, value)| here.remove(&key).map(|other| (key, value, other)));
    let found = pairs.find(|(_, first, here)| first != here);
    found.map(|(key, first, here)| (key, first.to_string(), here.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::predictions::{lines, tests::prediction};

    #[test]
    fn a_last_row_that_is_cut_short_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let rows = [1, 2].map(|row| prediction("bird", Split::Seen, World::Closed, row, "A", "é"));
        let whole = lines(&rows).unwrap();
        fs::write(&path, whole.trim_end()).unwrap();
        assert_eq!(read_predictions(&path).unwrap(), Predictions { rows: rows.to_vec(), torn: None });
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        assert_eq!(read_predictions(&path).unwrap(), Predictions { rows: rows[..1].to_vec(), torn: Some(2) });
        fs::write(&path, &whole[..30]).unwrap();
        assert_eq!(read_predictions(&path).unwrap(), Predictions { rows: vec![], torn: Some(1) });
        // In the middle of the file it is a damaged row.
        fs::write(&path, format!("{}\n{whole}", &whole[..30])).unwrap();
        assert!(read_predictions(&path).is_err());
    }

    #[test]
    fn rows_that_would_count_twice_or_are_of_two_runs_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let closed = |row| prediction("bird", Split::Seen, World::Closed, row, "A", "");
        let mut rows = vec![closed(1), closed(1), closed(1), closed(1), closed(2)];
        rows[1].question.option_order = Some(OptionOrder::Rotated { seed: 42, by: 1 });
        rows[2] = prediction("bird", Split::Seen, World::Open, 1, "A", "");
        rows[3].question.file = Some("b/bird_seen.jsonl".into());
        rows[4].settings.device = "cuda".into();
        let read = |rows: &[Prediction]| {
            fs::write(&path, lines(rows).unwrap()).unwrap();
            read_predictions(&path)
        };
        assert_eq!(read(&rows).unwrap().rows, rows);
        for (doubled, row) in rows.iter().zip(1..) {
            let mut doubled = doubled.clone();
            doubled.output = "another answer".into();
            let error = read(&[&rows[..], &[doubled]].concat()).unwrap_err();
            assert!(matches!(&error, EvalError::Prediction { row: 6, .. }), "{error}");
            assert!(error.to_string().contains(&format!("row {row} ")), "{error}");
        }
        type Change = fn(&mut RunSettings);
        let changes: [(&str, Change); 3] = [
            ("model", |settings| settings.model = "other".into()),
            ("max_pixels", |settings| settings.max_pixels += 1),
            ("temperature", |settings| settings.sampling.temperature = 0.5),
        ];
        for (name, change) in changes {
            let mut mixed = rows.clone();
            change(&mut mixed[3].settings);
            let error = read(&mixed).unwrap_err();
            assert!(
                matches!(&error, EvalError::TwoRuns { row: 4, first_row: 1, key, .. } if key == name),
                "{name}: {error}"
            );
        }
    }

    #[test]
    fn wrong_rows_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let row = |row| serde_json::to_value(prediction("bird", Split::Seen, World::Closed, row, "A", "")).unwrap();
        let good = row(1);
        for (field, value, expected) in [
            ("split", serde_json::json!("both"), "`both`"),
            ("output", Value::Null, "null"),
            ("ground_truth", serde_json::json!("E"), "`ground_truth`"),
            ("option_order", Value::Null, "`option_order`"),
            ("world", serde_json::json!("open"), "`options`"),
            ("options", serde_json::json!(["A", "Key_Lime", "key lime"]), "`options`"),
        ] {
            let mut bad = row(2);
            bad[field] = value;
            fs::write(&path, format!("{good}\n{bad}\n")).unwrap();
            let error = read_predictions(&path).unwrap_err();
            assert!(matches!(error, EvalError::Prediction { row: 2, .. }), "{error}");
            let error = error.to_string();
            assert!(error.starts_with(&format!("{}:2: ", path.display())), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        let mut short = good.clone();
        short.as_object_mut().unwrap().remove("output");
        fs::write(&path, short.to_string()).unwrap();
        assert!(read_predictions(&path).unwrap_err().to_string().contains("`output`"));
    }
}
