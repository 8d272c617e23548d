//! Closed questions from a model's own confusions: what it answered to an open question becomes the options (DiVE-k, arXiv
//! 2511.18305). Reference: `generate_mcq_qwen` of DiVE-k. Deviations: answers that name no class are left out before the most
//! frequent ones are taken, not after; the answer is the name of an option, not its letter; a row that nothing answered is
//! left out, where DiVE-k draws its options.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use fieldmark_stream::{RandomStream, StreamKey};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    answer::normal_form,
    error::{DataError, RowProblem},
    format::{
        reader::{ReadLimits, read_records},
        tapo_rows::TapoRow,
    },
    prompt::choice,
};

/// Number of classes drawn for a row with at most one wrong answer.
const DRAWN: usize = 2;

/// Rows of triplets whose questions have options.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClosedRows {
    /// The rows as they are in the file, with another `problem`.
    pub rows: Vec<Value>,
    /// Number of rows left out because the truth is the only class that was answered.
    pub only_right: usize,
    /// Number of rows left out because nothing answered them.
    pub unanswered: usize,
}

/// The answers to one row.
struct Answered {
    /// The first line of the rollouts that belongs to the row.
    line: usize,
    truth: String,
    answers: Vec<String>,
}

/// A line of `rollouts.jsonl`, as far as it is needed.
#[derive(Deserialize)]
struct Rollout {
    row: String,
    truth: String,
    answer: Option<String>,
}

impl ClosedRows {
    /// Gives each row of `file` (triplets) at most `count` options: the truth, and what the rollouts in `rollouts`
    /// (`rollouts.jsonl` of a run of TAPO over `file`) answered most often. `seed` draws their order, and the missing options
    /// of rows with at most one wrong answer.
    ///
    /// # Errors
    /// Returns an error that names file and row if one of the files cannot be read, if the rollouts belong to another
    /// file, or if all rows have the same answer.
    pub fn read(file: &Path, rollouts: &Path, count: usize, seed: u64) -> Result<Self, DataError> {
        let in_row = |row, problem| DataError::Row { file: file.into(), row, problem };
        let mut rows = Vec::new();
        for record in read_records(file, ReadLimits::default())?.rows {
            let record = record?;
            let row = TapoRow::parse(record.row, &record.value).map_err(|problem| in_row(record.row, problem))?;
            rows.push((row, record.value));
        }
        let classes = Classes::of(rows.iter().map(|(row, _)| row));
        if classes.names.len() < 2 {
            return Err(DataError::file(
                file,
                "all rows have the same answer, so that there is nothing to choose from",
            ));
        }
        let mut answered = read_rollouts(rollouts)?;
        let mut found = Self::default();
        let key = StreamKey::new(seed).word("options");
        for (row, mut value) in rows {
            let Some(Answered { line, truth, answers }) = answered.remove(&row.row) else {
                found.unanswered += 1;
                continue;
            };
            if normal_form(&truth) != normal_form(&row.answer) {
                let there = format!("row {} of {} has {:?}", row.row, file.display(), row.answer);
                return Err(other_file(rollouts, line, truth, there));
            }
            let stream = key.number(row.row as u64).stream();
            match classes.options(&answers, &row.answer, count, stream) {
                Some(options) => {
                    value["problem"] = format!("{}{}", row.problem, choice(&options)).into();
                    found.rows.push(value);
                }
                None => found.only_right += 1,
            }
        }
        match answered.into_iter().next() {
            Some((row, Answered { line, truth, .. })) => {
                Err(other_file(rollouts, line, truth, format!("{} has no row {row}", file.display())))
            }
            None => Ok(found),
        }
    }
}

fn other_file(rollouts: &Path, line: usize, truth: String, there: String) -> DataError {
    DataError::Row { file: rollouts.into(), row: line, problem: RowProblem::OtherRows { truth, there } }
}

/// Reads the answers by row. A response without an answer, or with several, has none.
fn read_rollouts(path: &Path) -> Result<BTreeMap<usize, Answered>, DataError> {
    let read_error = |source| DataError::Read { file: PathBuf::from(path), source };
    let in_line = |row, problem| DataError::Row { file: path.into(), row, problem };
    let mut rows: BTreeMap<usize, Answered> = BTreeMap::new();
    for (line, text) in (1..).zip(BufReader::new(File::open(path).map_err(read_error)?).lines()) {
        let text = text.map_err(read_error)?;
        if text.trim().is_empty() {
            continue;
        }
        let rollout: Rollout =
            serde_json::from_str(&text).map_err(|error| in_line(line, RowProblem::NoRollout(error.to_string())))?;
        let number = rollout.row.rsplit_once(':').and_then(|(_, number)| number.parse().ok());
        let number: usize = number.ok_or_else(|| in_line(line, RowProblem::NoRowNumber(rollout.row.clone())))?;
        let truth = rollout.truth;
        let of_row = rows.entry(number).or_insert_with(|| Answered { line, truth, answers: Vec::new() });
        of_row.answers.extend(rollout.answer);
    }
    Ok(rows)
}

/// The names that answers may have.
struct Classes {
    /// Each class once, in the order of the rows.
    names: Vec<String>,
    /// The class of each name and alias, in normal form.
    known: BTreeMap<String, usize>,
}

impl Classes {
    fn of<'a>(rows: impl Iterator<Item = &'a TapoRow>) -> Self {
        let mut classes = Self { names: Vec::new(), known: BTreeMap::new() };
        for row in rows {
            let next = classes.names.len();
            let class = *classes.known.entry(normal_form(&row.answer)).or_insert(next);
            if class == next {
                classes.names.push(row.answer.clone());
            }
            for alias in &row.aliases {
                classes.known.entry(normal_form(alias)).or_insert(class);
            }
        }
        classes
    }

    /// The options of a row, in a drawn order. `None` if the truth is the only class that was answered.
    fn options(&self, answers: &[String], truth: &str, count: usize, mut stream: RandomStream) -> Option<Vec<String>> {
        let truth = *self.known.get(&normal_form(truth))?;
        let mut counts: Vec<(usize, usize)> = Vec::new();
        for class in answers.iter().filter_map(|answer| self.known.get(&normal_form(answer)).copied()) {
            match counts.iter_mut().find(|(known, _)| *known == class) {
                Some((_, count)) => *count += 1,
                None => counts.push((class, 1)),
            }
        }
        counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let mut options: Vec<usize> = counts.into_iter().map(|(class, _)| class).take(count).collect();
        if options == [truth] {
            return None;
        }
        if options.len() <= 1 {
            let mut others: Vec<usize> =
                (0..self.names.len()).filter(|class| *class != truth && !options.contains(class)).collect();
            stream.shuffle(&mut others);
            let room = count.saturating_sub(1 + options.len());
            options.extend(others.into_iter().take(DRAWN.min(room)));
        }
        if !options.contains(&truth) {
            options.truncate(count.saturating_sub(1));
            options.push(truth);
        }
        stream.shuffle(&mut options);
        Some(options.into_iter().map(|class| self.names[class].clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use serde_json::json;

    use super::*;

    const CLASSES: [&str; 6] = ["Lime", "Lemon", "Fig", "Plum", "Pear", "Kiwi"];

    fn rows() -> Vec<Value> {
        let row = |name: &&str| json!({ "problem": "<image>Which?", "answer": name, "images": ["a.png"], "extra": 7 });
        let mut rows: Vec<Value> = CLASSES.iter().map(row).collect();
        rows[1]["aliases"] = json!(["Citron"]);
        rows
    }

    fn chosen(truth: &str, answers: &[(&str, usize)], count: usize) -> Option<BTreeSet<String>> {
        let rows: Vec<TapoRow> =
            rows().iter().enumerate().map(|(i, row)| TapoRow::parse(i + 1, row).unwrap()).collect();
        let answers: Vec<String> =
            answers.iter().flat_map(|&(answer, times)| std::iter::repeat_n(answer.to_owned(), times)).collect();
        let options = Classes::of(rows.iter()).options(&answers, truth, count, StreamKey::new(1).stream())?;
        let set: BTreeSet<String> = options.iter().cloned().collect();
        assert_eq!(set.len(), options.len());
        Some(set)
    }

    #[test]
    fn what_was_answered_most_often_is_offered() {
        let set = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
        let answers = [("a fruit", 9), ("Fig", 1), ("lemon", 2), ("citron", 1), ("Lime", 2), ("PLUM", 1)];
        assert_eq!(chosen("Lime", &answers, 5), set(&["Lemon", "Lime", "Fig", "Plum"]));
        assert_eq!(chosen("Lime", &answers, 2), set(&["Lemon", "Lime"]));
        // Of equally frequent answers the first one counts; the truth takes the last place if it is not among them.
        assert_eq!(chosen("Lime", &answers, 3), set(&["Lemon", "Lime", "Fig"]));
        assert_eq!(chosen("Kiwi", &answers, 3), set(&["Lemon", "Lime", "Kiwi"]));
        assert_eq!(chosen("Kiwi", &answers, 5), set(&["Lemon", "Lime", "Fig", "Plum", "Kiwi"]));
        assert_eq!(chosen("Lime", &[("lime", 4), ("a fruit", 1)], 5), None);
    }

    #[test]
    fn one_wrong_answer_or_none_is_filled_up() {
        for (answers, known, size) in
            [(&[("lemon", 3)][..], &["Lemon", "Lime"][..], 4), (&[("a fruit", 3)], &["Lime"], 3), (&[], &["Lime"], 3)]
        {
            let found = chosen("Lime", answers, 5).unwrap();
            assert_eq!(found.len(), size, "{found:?}");
            assert!(known.iter().all(|name| found.contains(*name)), "{found:?}");
            assert_eq!(chosen("Lime", answers, 2).unwrap().len(), 2);
        }
    }

    #[test]
    fn rows_keep_their_columns_and_are_told_apart_from_those_of_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let [file, rollouts] = ["tapo.jsonl", "rollouts.jsonl"].map(|name| folder.path().join(name));
        let lines = |rows: &[Value]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
        fs::write(&file, lines(&rows())).unwrap();
        let said = |row: usize, truth: &str, answer: Option<&str>| json!({ "row": format!("/else/where/tapo.jsonl:{row}"), "truth": truth, "answer": answer, "tokens": 4 });
        let mut answers = vec![said(1, "Lime", Some("Lemon")), said(1, "Lime", Some("Lime")), said(1, "Lime", None)];
        answers.extend([said(3, "fig", Some("Fig")), said(2, "Lemon", None)]);
        fs::write(&rollouts, lines(&answers)).unwrap();
        let read = || ClosedRows::read(&file, &rollouts, 5, 3);
        let found = read().unwrap();
        assert_eq!((found.rows.len(), found.only_right, found.unanswered), (2, 1, 3));
        let problem = found.rows[0]["problem"].as_str().unwrap();
        let expected =
            ["['Lemon', 'Lime']", "['Lime', 'Lemon']"].map(|list| format!("<image>Which? Choose one of {list}."));
        assert!(expected.iter().any(|expected| expected == problem), "{problem}");
        assert_eq!((&found.rows[0]["extra"], &found.rows[0]["images"]), (&json!(7), &json!(["a.png"])));
        assert_eq!(read().unwrap(), found);

        for (line, wrong) in [
            (2, said(3, "Plum", Some("Plum"))),
            (2, said(7, "Lime", None)),
            (2, json!({ "row": "a photograph", "truth": "Lime", "answer": null })),
            (2, json!({ "row": "tapo.jsonl:1", "answer": "Lime" })),
        ] {
            fs::write(&rollouts, lines(&[said(1, "Lime", None), wrong])).unwrap();
            let error = read().unwrap_err();
            assert!(matches!(error, DataError::Row { row, .. } if row == line), "{error}");
            assert!(error.to_string().contains("rollouts.jsonl:2: "), "{error}");
        }
        fs::write(&file, lines(&rows()[..1])).unwrap();
        fs::write(&rollouts, lines(&answers[..1])).unwrap();
        assert!(matches!(read().unwrap_err(), DataError::File { .. }));
    }
}
