//! The answers that an earlier process left in a predictions file, and how far an evaluation goes on with them.
//!
//! Answers are kept in whole batches: a question is asked again together with the same others, so that the file ends as
//! if the evaluation had never been stopped.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::error::EvalError;
use crate::predictions::{Prediction, RunSettings};
use crate::question::Question;
use crate::question_set::QuestionSet;

/// The whole rows at the start of a predictions file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kept {
    /// The rows, in order.
    pub rows: Vec<Prediction>,
    /// The end of every row in the file, in bytes.
    ends: Vec<u64>,
}

impl Kept {
    /// Reads the whole rows of a predictions file; a missing file has none. Ignores a last row that is cut short.
    ///
    /// # Errors
    /// Returns [`EvalError::Write`] if the file cannot be read, and [`EvalError::Prediction`] for the first damaged row.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(EvalError::Write { file: path.into(), source }),
        };
        let mut kept = Self::default();
        let mut end = 0;
        for line in bytes.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            end += line.len() as u64;
            let row = serde_json::from_slice(line).map_err(|error| EvalError::Prediction {
                file: path.into(),
                row: kept.rows.len() + 1,
                problem: error.to_string(),
            })?;
            kept.rows.push(row);
            kept.ends.push(end);
        }
        Ok(kept)
    }

    /// Checks that the rows answer the first questions of `sets` under `settings`. The names of model and device may
    /// differ.
    ///
    /// # Errors
    /// Returns [`EvalError::Other`] for the first row that does not.
    pub fn check(&self, path: &Path, sets: &[QuestionSet], settings: &RunSettings) -> Result<(), EvalError> {
        let questions: Vec<&Question> = sets.iter().flat_map(|set| &set.questions).collect();
        for (index, row) in self.rows.iter().enumerate() {
            let other = |problem: String| EvalError::Other { file: path.into(), row: index + 1, problem };
            let Some(question) = questions.get(index) else {
                return Err(other(format!("there are only {} questions", questions.len())));
            };
            if row.question != **question {
                return Err(other(format!("answers another question than {}", question.name())));
            }
            let RunSettings { model, device, .. } = row.settings.clone();
            if row.settings != (RunSettings { model, device, ..settings.clone() }) {
                return Err(other("was answered with other settings".into()));
            }
        }
        Ok(())
    }

    /// Keeps the first rows up to the end of the last batch of which all rows are there. `ends` are the ends of the
    /// batches, in rows.
    pub(crate) fn cut_to(&mut self, ends: impl Iterator<Item = usize>) {
        let whole = ends.take_while(|end| *end <= self.rows.len()).last().unwrap_or(0);
        self.rows.truncate(whole);
        self.ends.truncate(whole);
    }

    /// The length of the kept rows in bytes.
    pub(crate) fn length(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use fieldmark_data::{ImageRoots, Split};

    use super::*;
    use crate::predictions::{lines, tests::prediction};
    use crate::question::World;

    #[test]
    fn whole_batches_are_kept_and_torn_rows_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.jsonl");
        assert_eq!(Kept::read(&path).unwrap(), Kept::default());
        let rows: Vec<_> = (1..=5).map(|row| prediction("a", Split::Seen, World::Closed, row, "A", "é")).collect();
        let text = lines(&rows).unwrap();
        // Cut in the last line, even within a character.
        let cut = text.rfind('é').unwrap() + 1;
        fs::write(&path, &text.as_bytes()[..cut]).unwrap();
        let read = Kept::read(&path).unwrap();
        assert_eq!(read.rows, rows[..4]);
        for (ends, kept) in [(vec![2, 4, 6], 4), (vec![3, 5], 3), (vec![5], 0), (vec![1, 2, 3, 4, 5], 4)] {
            let mut cut = read.clone();
            cut.cut_to(ends.into_iter());
            assert_eq!(cut.rows, rows[..kept]);
            assert_eq!(cut.length(), lines(&rows[..kept]).unwrap().len() as u64);
        }
        fs::write(&path, text.replacen("\"row\":2", "\"row\":two", 1)).unwrap();
        assert!(matches!(Kept::read(&path), Err(EvalError::Prediction { row: 2, .. })));
    }

    #[test]
    fn answers_to_other_questions_or_of_other_settings_are_refused() {
        let rows: Vec<_> = (1..=3).map(|row| prediction("a", Split::Seen, World::Closed, row, "A", "")).collect();
        let questions: Vec<_> = rows.iter().map(|row| row.question.clone()).collect();
        let settings = rows[0].settings.clone();
        let kept = Kept { rows, ..Kept::default() };
        let row_at_fault = |questions: &[Question], settings: &RunSettings| {
            let sets = [QuestionSet::new(questions.to_vec(), ImageRoots::default())];
            match kept.check(Path::new("p.jsonl"), &sets, settings) {
                Ok(()) => 0,
                Err(EvalError::Other { row, .. }) => row,
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(row_at_fault(&questions, &settings), 0);
        let moved = RunSettings { model: "elsewhere".into(), device: "cuda".into(), ..settings.clone() };
        assert_eq!(row_at_fault(&questions, &moved), 0);
        assert_eq!(row_at_fault(&questions[..2], &settings), 3);
        assert_eq!(row_at_fault(&questions, &RunSettings { max_new_tokens: 1, ..settings.clone() }), 1);
        let mut other = questions.clone();
        other[1].prompt.push('?');
        assert_eq!(row_at_fault(&other, &settings), 2);
    }
}
