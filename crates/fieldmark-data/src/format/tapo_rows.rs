//! Triplets for TAPO. One row is one question with three photographs (q, a, x, x⁺, x⁻ of Fine-R1, section 4.3):
//!
//! ```json
//! {"problem": "<image>What is in this photograph?", "answer": "Anjou", "anchor": "images/train/Anjou/Anjou_001.jpg",
//! "positive": "images/train/Anjou/Anjou_007.jpg", "negative": "images/train/Conference/Conference_001.jpg"}
//! ```
//!
//! | Field | Needed? | Meaning |
//! | --- | --- | --- |
//! | `problem` | yes | the question, with exactly one `<image>` |
//! | `answer` | yes | the true class, which rewards compare a response with; answer tags around it are removed |
//! | `anchor`, or `images` | yes | the photograph that the question is about |
//! | `positive`, or `image_noisy` | unless `tapo.positive_rollouts = 0` | another photograph of the same class |
//! | `negative`, or `image_aug` | for most runs | a photograph of the most similar other class |
//! | `aliases`, or `alias` | no | other names of the true class, a list or one, which are as right as `answer` |
//!
//! A run needs no negatives with `tapo.negative = "patches"`, or with both `tapo.loss.gamma` and `tapo.loss.eta2` at 0.
//! The first name is the paper's (arXiv 2602.07605), the second that of the released loader; a row may mix them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::columns::{aliases, filled, images, object, truth};
use super::reader::{ReadLimits, read_records};
use crate::error::{DataError, RowProblem};
use crate::prompt::IMAGE_PLACEHOLDER;

/// One checked TAPO row: one `<image>` in the problem, and at most one image in each column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapoRow {
    /// The row in its file, from 1.
    pub row: usize,
    /// The question with its one `<image>`, trimmed as by the released prompt template.
    pub problem: String,
    /// The truth, which rewards compare a response with ([`truth_text`](crate::truth_text)).
    pub answer: String,
    /// Other names of the truth.
    pub aliases: Vec<String>,
    /// The image that the question is about (`anchor` or `images`).
    pub anchor: PathBuf,
    /// Another image of the same class (`positive` or `image_noisy`), if the row names one.
    pub positive: Option<PathBuf>,
    /// An image of the most similar other class (`negative` or `image_aug`), if the row names one.
    pub negative: Option<PathBuf>,
}

impl TapoRow {
    /// Reads one row with the paper's or the released names.
    ///
    /// A row may lack a positive, which is needed only for rollouts on it, and a negative, which training on blackened
    /// anchors does not need (the released loader switches to them unasked), nor a loss without the terms for it.
    ///
    /// # Errors
    /// Returns the first problem of the row.
    pub fn parse(row: usize, value: &Value) -> Result<Self, RowProblem> {
        let columns = object(value)?;
        let problem = filled(columns, "problem")?.trim().to_owned();
        let answer = truth(columns, "answer")?;
        let aliases = aliases(columns)?;
        let (anchor_column, anchors) = role(columns, ["anchor", "images"])?;
        let placeholders = problem.matches(IMAGE_PLACEHOLDER).count();
        if anchors.is_empty() && placeholders == 0 {
            return Err(RowProblem::NoImage(anchor_column.into()));
        }
        if anchors.len() != placeholders {
            return Err(RowProblem::PlaceholderCount {
                placeholders,
                images: anchors.len(),
                column: anchor_column.into(),
            });
        }
        Ok(Self {
            row,
            problem,
            answer,
            aliases,
            anchor: one(anchor_column, anchors)?,
            positive: one_or_none(columns, ["positive", "image_noisy"])?,
            negative: one_or_none(columns, ["negative", "image_aug"])?,
        })
    }
}

fn role<'a>(columns: &Map<String, Value>, names: [&'a str; 2]) -> Result<(&'a str, Vec<PathBuf>), RowProblem> {
    let present = names.into_iter().find(|name| columns.contains_key(*name));
    let column = present.unwrap_or(names[0]);
    Ok((column, images(columns, column)?))
}

fn one(column: &str, mut images: Vec<PathBuf>) -> Result<PathBuf, RowProblem> {
    match images.pop() {
        Some(image) if images.is_empty() => Ok(image),
        last => Err(RowProblem::OneImage { column: column.into(), images: images.len() + usize::from(last.is_some()) }),
    }
}

fn one_or_none(columns: &Map<String, Value>, names: [&str; 2]) -> Result<Option<PathBuf>, RowProblem> {
    match role(columns, names)? {
        (_, images) if images.is_empty() => Ok(None),
        (column, images) => one(column, images).map(Some),
    }
}

/// Reads a file of TAPO rows: JSON or JSONL, plain or gzipped.
///
/// # Errors
/// Returns the first bad row, with file and row; the errors of [`read_records`]; or an error if the file is empty.
pub fn read_tapo_rows(path: &Path) -> Result<Vec<TapoRow>, DataError> {
    let records = read_records(path, ReadLimits::default())?;
    let mut rows = Vec::with_capacity(records.rows.len());
    for record in records.rows {
        let record = record?;
        let row =
            TapoRow::parse(record.row, &record.value).map_err(|problem| DataError::row(path, record.row, problem))?;
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(DataError::file(path, "no rows; give a file with TAPO rows"));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::answer::truth::Unmatchable;

    fn row() -> Value {
        json!({"problem": " <image>Which?\n", "answer": "Lime", "images": ["a"], "image_noisy": ["p"], "image_aug": ["n"]})
    }

    fn with(field: &str, value: Value) -> Result<TapoRow, RowProblem> {
        let mut row = row();
        row[field] = value;
        TapoRow::parse(1, &row)
    }

    #[test]
    fn released_and_paper_names_mean_the_same() {
        let released = TapoRow::parse(1, &row()).unwrap();
        let ours =
            json!({"problem": "<image>Which?", "answer": "Lime", "anchor": "a", "positive": "p", "negative": "n"});
        assert_eq!(TapoRow::parse(1, &ours).unwrap(), released);
        assert_eq!(released.anchor, Path::new("a"));
        assert_eq!(released.positive.as_deref(), Some(Path::new("p")));
        assert_eq!(released.negative.as_deref(), Some(Path::new("n")));
    }

    #[test]
    fn every_bad_row_says_what_is_wrong() {
        let mismatch =
            |placeholders, images| RowProblem::PlaceholderCount { placeholders, images, column: "images".into() };
        let count = |column: &str, images| RowProblem::OneImage { column: column.into(), images };
        let cases = [
            (with("images", json!(["a", "b"])), mismatch(1, 2)),
            (with("problem", json!("Which?")), mismatch(0, 1)),
            (with("images", json!([])), mismatch(1, 0)),
            (with("image_noisy", json!(["p", "q"])), count("image_noisy", 2)),
            (with("image_aug", json!(["n", "m"])), count("image_aug", 2)),
            (with("answer", json!("")), RowProblem::Empty("answer".into())),
            (
                with("answer", json!("<answer>?</answer>")),
                RowProblem::Unmatchable { truth: "?".into(), reason: Unmatchable::Punctuation },
            ),
            (
                with("aliases", json!(["Limette", 3])),
                RowProblem::WrongType {
                    field: "aliases".into(),
                    expected: "a string or a list of strings",
                    found: "a number",
                },
            ),
            (
                with("answer", json!(3)),
                RowProblem::WrongType { field: "answer".into(), expected: "a string", found: "a number" },
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(found.unwrap_err(), expected);
        }
        let none = json!({"problem": "Which?", "answer": "Lime"});
        assert_eq!(TapoRow::parse(1, &none).unwrap_err(), RowProblem::NoImage("anchor".into()));
        let two = json!({"problem": "<image><image>", "answer": "x", "images": ["a", "b"]});
        assert_eq!(TapoRow::parse(1, &two).unwrap_err(), count("images", 2));
    }

    #[test]
    fn truth_and_aliases_are_names_alone() {
        for answer in ["Lime\n", "<answer>Lime</answer>", " <answer> Lime"] {
            assert_eq!(with("answer", json!(answer)).unwrap(), TapoRow::parse(1, &row()).unwrap());
        }
        assert_eq!(with("answer", json!("Jalapen\u{303}o")).unwrap().answer, "Jalape\u{f1}o");
        for (field, value) in [("alias", json!("Limette ")), ("aliases", json!(["", "<answer>Limette</answer>"]))] {
            assert_eq!(with(field, value).unwrap().aliases, ["Limette"]);
        }
        assert!(with("aliases", Value::Null).unwrap().aliases.is_empty());
    }

    #[test]
    fn a_row_may_lack_a_positive_and_a_negative() {
        let none = TapoRow::parse(1, &json!({"problem": "<image>", "answer": "x", "anchor": "a"})).unwrap();
        assert_eq!((none.positive, none.negative), (None, None));
        for empty in [Value::Null, json!([])] {
            assert_eq!(with("image_noisy", empty.clone()).unwrap().positive, None);
            assert_eq!(with("image_aug", empty).unwrap().negative, None);
        }
        let released = TapoRow::parse(1, &row()).unwrap();
        assert_eq!(with("image_aug", Value::Null).unwrap(), TapoRow { negative: None, ..released });
    }
}
