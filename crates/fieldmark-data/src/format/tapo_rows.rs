//! Triplets for TAPO. One row is one question with three photographs (q, a, x, x⁺, x⁻ of Fine-R1, section 4.3):
//!
//! ```json
//! {"problem": "<image>What is in this photograph?", "answer": "Anjou", "anchor": "images/train/Anjou/Anjou_001.jpg",
//! "positive": "images/train/Anjou/Anjou_007.jpg", "negative": "images/train/Conference/Conference_001.jpg"}
//! ```
//!
//! | Field | Needed? | Meaning |
//! | --- | --- | --- |
//! | `problem` | yes | the question; its one `<image>` may be left out, which puts the image first |
//! | `answer` | yes | the true class, which rewards compare a response with; answer tags around it are removed |
//! | `anchor`, or `images` | yes | the photograph that the question is about |
//! | `positive`, or `image_noisy` | unless `tapo.positive_rollouts = 0` | another photograph of the same class |
//! | `negative`, or `image_aug` | for most runs | a photograph of the most similar other class |
//! | `aliases`, or `alias` | no | other names of the true class, a list or one, which are as right as `answer` |
//!
//! A run needs no negatives with `tapo.negative = "patches"`, or with both `tapo.loss.gamma` and `tapo.loss.eta2` at 0 and
//! without `tapo.loss.visual_tokens`.
//! The first name is the paper's (arXiv 2602.07605), the second that of the released loader; a row may mix them. The
//! negative must not be the anchor or the positive.

use std::path::Path;

use serde_json::{Map, Value};

use super::columns::{UNREAD, aliases, filled, has_content, object, refuse_tags, refuse_unread, truth};
use super::image_values::images;
use super::reader::{ReadLimits, read_records};
use crate::error::{DataError, RowProblem};
use crate::images::ImageRoots;
use crate::prompt::IMAGE_PLACEHOLDER;
use crate::row_image::RowImage;

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
    pub anchor: RowImage,
    /// Another image of the same class (`positive` or `image_noisy`), if the row names one.
    pub positive: Option<RowImage>,
    /// An image of the most similar other class (`negative` or `image_aug`), if the row names one.
    pub negative: Option<RowImage>,
    /// True if the problem had no `<image>`, so that the image was put first.
    pub image_put_first: bool,
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
        refuse_unread(columns, &UNREAD)?;
        let mut problem = filled(columns, "problem")?.trim().to_owned();
        refuse_tags(&problem, "problem")?;
        let answer = truth(columns, "answer")?;
        let aliases = aliases(columns)?;
        let (anchor_column, anchors) = role(columns, ["anchor", "images"])?;
        let mut placeholders = problem.matches(IMAGE_PLACEHOLDER).count();
        let image_put_first = placeholders == 0 && anchors.len() == 1;
        if image_put_first {
            problem.insert_str(0, IMAGE_PLACEHOLDER);
            placeholders = 1;
        }
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
        let read = Self {
            row,
            problem,
            answer,
            aliases,
            anchor: one(anchor_column, anchors)?,
            positive: one_or_none(columns, ["positive", "image_noisy"])?,
            negative: one_or_none(columns, ["negative", "image_aug"])?,
            image_put_first,
        };
        read.check_negative(|one, other| one == other)?;
        Ok(read)
    }

    /// The row with its paths replaced by those of the files under `roots`, which [`ImageRoots::locate`] finds. `needed`
    /// says for positive and negative whether the run uses them; others are left out.
    ///
    /// # Errors
    /// Returns an error if an image is not found, or if the negative has the content of the anchor or the positive.
    pub fn located(&self, roots: &ImageRoots, needed: [bool; 2]) -> Result<Self, RowProblem> {
        let find = |image: &RowImage| {
            roots.locate(image).ok_or_else(|| roots.not_found(image.path().unwrap_or(Path::new(""))))
        };
        let other = |image: &Option<RowImage>, needed: bool| image.as_ref().filter(|_| needed).map(find).transpose();
        let found = Self {
            anchor: find(&self.anchor)?,
            positive: other(&self.positive, needed[0])?,
            negative: other(&self.negative, needed[1])?,
            ..self.clone()
        };
        // A file that cannot be read is the decoder's to report.
        found.check_negative(|one, other| one.same_content(other).unwrap_or(false))?;
        Ok(found)
    }

    /// Refuses a negative that is the anchor or the positive: their difference is what the loss learns from.
    fn check_negative(&self, same: impl Fn(&RowImage, &RowImage) -> bool) -> Result<(), RowProblem> {
        let Some(negative) = &self.negative else { return Ok(()) };
        match &self.positive {
            _ if same(negative, &self.anchor) => Err(RowProblem::SameImage("anchor")),
            Some(positive) if same(negative, positive) => Err(RowProblem::SameImage("positive")),
            _ => Ok(()),
        }
    }
}

fn role<'a>(columns: &Map<String, Value>, names: [&'a str; 2]) -> Result<(&'a str, Vec<RowImage>), RowProblem> {
    // One of the two may be a column that other rows of the data set use.
    let filled = names.into_iter().find(|name| columns.get(*name).is_some_and(has_content));
    let present = filled.or_else(|| names.into_iter().find(|name| columns.contains_key(*name)));
    let column = present.unwrap_or(names[0]);
    Ok((column, images(columns, column)?))
}

fn one(column: &str, mut images: Vec<RowImage>) -> Result<RowImage, RowProblem> {
    match images.pop() {
        Some(image) if images.is_empty() => Ok(image),
        last => Err(RowProblem::OneImage { column: column.into(), images: images.len() + usize::from(last.is_some()) }),
    }
}

fn one_or_none(columns: &Map<String, Value>, names: [&str; 2]) -> Result<Option<RowImage>, RowProblem> {
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
        assert_eq!(released.anchor, "a".into());
        assert_eq!(released.positive, Some("p".into()));
        assert_eq!(released.negative, Some("n".into()));
        let without = with("problem", json!("Which?")).unwrap();
        assert_eq!((without.problem.as_str(), without.image_put_first), ("<image>Which?", true));
        assert!(!released.image_put_first);
    }

    #[test]
    fn the_negative_is_another_image_by_path_and_by_content() {
        assert_eq!(with("image_aug", json!(["a"])).unwrap_err(), RowProblem::SameImage("anchor"));
        assert_eq!(with("image_aug", json!("p")).unwrap_err(), RowProblem::SameImage("positive"));
        // A class with a single photograph may use it twice.
        assert!(with("image_noisy", json!("a")).is_ok());
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [("a", "one"), ("p", "two"), ("n", "six"), ("copy", "one"), ("copy2", "two")] {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let roots = ImageRoots::new(dir.path());
        let located = |negative: &str, needed| with("image_aug", json!(negative)).unwrap().located(&roots, needed);
        let found = located("n", [true, true]).unwrap();
        assert_eq!(found.anchor, RowImage::Path(dir.path().join("a")));
        assert_eq!(located("copy", [true, true]).unwrap_err(), RowProblem::SameImage("anchor"));
        assert_eq!(located("copy2", [true, true]).unwrap_err(), RowProblem::SameImage("positive"));
        assert_eq!(located("copy", [true, false]).unwrap().negative, None);
        let bytes = json!({"bytes": "b25l"});
        let inside = with("image_aug", bytes).unwrap();
        assert_eq!(inside.located(&roots, [true, true]).unwrap_err(), RowProblem::SameImage("anchor"));
        let gone = located("gone", [true, true]).unwrap_err();
        assert!(matches!(&gone, RowProblem::ImageNotFound { image, .. } if image == "gone"), "{gone}");
    }

    #[test]
    fn every_bad_row_says_what_is_wrong() {
        let mismatch =
            |placeholders, images| RowProblem::PlaceholderCount { placeholders, images, column: "images".into() };
        let count = |column: &str, images| RowProblem::OneImage { column: column.into(), images };
        let cases = [
            (with("images", json!(["a", "b"])), mismatch(1, 2)),
            (with("videos", json!(["v"])), RowProblem::Unread("videos".into())),
            (
                with("problem", json!("<video>Which?")),
                RowProblem::UnreadTag { field: "problem".into(), tag: "<video>" },
            ),
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
