//! Evaluation questions, as in the released `eval/*.jsonl`. One row is one question about one photograph:
//!
//! ```json
//! {"image_path": "flower102/jpg/image_00264.jpg", "question": "What kind of flower is this?",
//! "options": ["water lily", "cape flower", "sword lily", "lotus"], "ground_truth": "water lily"}
//! ```
//!
//! | Field | Needed? | Meaning |
//! | --- | --- | --- |
//! | `image_path` | yes | the path of the photograph |
//! | `question` | yes | the question, without `<image>` |
//! | `options` | for closed-world evaluation | two or more different choices, the truth among them |
//! | `ground_truth` | yes | the name of the true class |
//! | `super_category` | no | the family of the true class; without it, the data set's name |
//! | `aliases`, or `alias` | no | other names of the true class, a list or one, which are as right as `ground_truth` |
//!
//! The file's name says the data set and the split: `flower_seen.jsonl`, `flower_unseen.jsonl.gz`. The released code
//! guesses super-categories from parts of the image paths instead.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::columns::{UNREAD, aliases, filled, kind_of, object, refuse_tags, refuse_unread, truth};
use super::image_values::from_text;
use super::reader::{ReadLimits, read_records};
use super::split::Split;
use crate::answer::{aliases::Aliases, alike::normal_form, truth::truth_text};
use crate::classes::names::alike_options;
use crate::error::{DataError, RowProblem};
use crate::row_image::RowImage;

/// One question about one photograph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalRow {
    /// The row in its file, from 1.
    pub row: usize,
    /// The image path in the row. [`crate::ImageRoots`] finds the file.
    pub image_path: PathBuf,
    /// The question, without a placeholder.
    pub question: String,
    /// The choices in the file's order, the truth among them; empty if the row is for open-world evaluation only.
    pub options: Vec<String>,
    /// The true class name.
    pub ground_truth: String,
    /// The super-category of the truth ("bird"), which open-world answers are measured against.
    pub super_category: String,
}

/// The name of a set of evaluation rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalSetName {
    /// The data set ("aircraft").
    pub dataset: String,
    /// Seen or unseen classes.
    pub split: Split,
    /// The super-category of the rows without a `super_category` field.
    pub super_category: String,
}

impl EvalSetName {
    /// Reads the name from a file name `<dataset>_<split>.jsonl` or `.json`, also gzipped, like those of the twelve
    /// released files. The data set is also the super-category.
    ///
    /// # Errors
    /// Returns [`DataError::File`] if the file name has another form.
    pub fn from_file_name(path: &Path) -> Result<Self, DataError> {
        let name = path.file_name().and_then(|name| name.to_str());
        let stem = name.map(|name| {
            let name = name.strip_suffix(".gz").unwrap_or(name);
            let name = name.strip_suffix(".jsonl").unwrap_or(name);
            name.strip_suffix(".json").unwrap_or(name)
        });
        let parts = stem.and_then(|stem| stem.rsplit_once('_'));
        match parts.map(|(dataset, split)| (dataset, split.parse())) {
            Some((dataset, Ok(split))) if !dataset.is_empty() => {
                Ok(Self { dataset: dataset.into(), split, super_category: dataset.into() })
            }
            _ => Err(DataError::file(
                path,
                "the file name does not say data set and split; rename the file to <dataset>_seen.jsonl or \
                 <dataset>_unseen.jsonl",
            )),
        }
    }
}

/// A named set of evaluation rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalSet {
    /// Data set, split and super-category.
    pub name: EvalSetName,
    /// The rows in order.
    pub rows: Vec<EvalRow>,
    /// Other names of the classes.
    pub aliases: Aliases,
}

impl EvalSet {
    /// Adds `aliases` and checks all aliases of the set. `file` is where they come from.
    ///
    /// # Errors
    /// Returns the errors of [`Aliases::check`] over the truths and options of the rows.
    pub fn with_aliases(mut self, aliases: &Aliases, file: &Path) -> Result<Self, DataError> {
        self.aliases.merge(aliases);
        let names = self.rows.iter().flat_map(|row| row.options.iter().chain([&row.ground_truth]));
        self.aliases.check(names.map(String::as_str), file)?;
        Ok(self)
    }
}

impl EvalRow {
    /// Reads one row. `super_category` applies if the row has none.
    ///
    /// # Errors
    /// Returns the first problem of the row.
    pub fn parse(row: usize, value: &Value, super_category: &str) -> Result<Self, RowProblem> {
        let columns = object(value)?;
        let image_path = match columns.get("image_path") {
            None | Some(Value::Null) => return Err(RowProblem::NoImage("image_path".into())),
            Some(_) => path(filled(columns, "image_path")?)?,
        };
        refuse_unread(columns, &UNREAD)?;
        let question = filled(columns, "question")?.to_owned();
        refuse_tags(&question, "question")?;
        let mut ground_truth = truth(columns, "ground_truth")?;
        let options = options(columns.get("options"))?;
        if !options.is_empty() && !options.contains(&ground_truth) {
            let form = normal_form(&ground_truth);
            match options.iter().find(|option| normal_form(option) == form) {
                Some(option) => ground_truth = option.clone(),
                None => return Err(RowProblem::TruthNotAnOption(ground_truth)),
            }
        }
        aliases(columns)?;
        let super_category = match columns.get("super_category") {
            None | Some(Value::Null) => super_category,
            Some(_) => filled(columns, "super_category")?,
        };
        Ok(Self { row, image_path, question, options, ground_truth, super_category: super_category.to_owned() })
    }

    /// The super-category that the released code finds by a part of the path ("aircraft", "birds", "cars", "flower",
    /// otherwise "object"). With the released paths, every bird, dog and pet is an "object".
    pub fn released_super_category(&self) -> &'static str {
        let path = self.image_path.to_string_lossy();
        [("aircraft", "aircraft"), ("birds", "bird"), ("cars", "car"), ("flower", "flower")]
            .into_iter()
            .find(|(part, _)| path.contains(part))
            .map_or("object", |(_, name)| name)
    }
}

/// The path of a photograph. Predictions name it, so that it cannot be bytes.
fn path(text: &str) -> Result<PathBuf, RowProblem> {
    match from_text(text, "image_path")? {
        RowImage::Path(path) => Ok(path),
        RowImage::Bytes(_) => Err(RowProblem::EmbeddedImage {
            column: "image_path".into(),
            problem: "questions are asked about files".into(),
        }),
    }
}

fn options(value: Option<&Value>) -> Result<Vec<String>, RowProblem> {
    let wrong =
        |found| RowProblem::WrongType { field: "options".into(), expected: "a list of strings", found: kind_of(found) };
    let list = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(wrong(other)),
    };
    let mut options: Vec<String> = Vec::with_capacity(list.len());
    for option in list {
        let option = option.as_str().ok_or_else(|| wrong(option))?;
        if normal_form(option).is_empty() {
            return Err(RowProblem::Empty("options".into()));
        }
        refuse_tags(option, "options")?;
        options.push(truth_text(option));
    }
    match alike_options(&options) {
        _ if options.len() == 1 => Err(RowProblem::TooFewOptions(1)),
        Some((one, other)) if one == other => Err(RowProblem::RepeatedOption(one.into())),
        Some((one, other)) => Err(RowProblem::AlikeOptions(one.into(), other.into())),
        None => Ok(options),
    }
}

/// Reads a file of evaluation rows.
///
/// # Errors
/// Returns the first bad row, with file and row; the errors of [`read_records`]; an error if the file is empty; or the
/// errors of [`Aliases::check`].
pub fn read_eval_rows(path: &Path, name: EvalSetName) -> Result<EvalSet, DataError> {
    let records = read_records(path, ReadLimits::default())?;
    let mut rows = Vec::with_capacity(records.rows.len());
    let mut named = Aliases::default();
    for record in records.rows {
        let record = record?;
        let wrong = |problem| DataError::row(path, record.row, problem);
        let row = EvalRow::parse(record.row, &record.value, &name.super_category).map_err(wrong)?;
        named.add(&row.ground_truth, object(&record.value).and_then(aliases).map_err(wrong)?);
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(DataError::file(path, "no rows; give a file with evaluation rows"));
    }
    EvalSet { name, rows, aliases: Aliases::default() }.with_aliases(&named, path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::answer::truth::Unmatchable;

    fn row() -> Value {
        json!({"image_path": "a.jpg", "question": "Which?", "options": ["Lime", "Lemon"], "ground_truth": "Lime"})
    }

    fn with(field: &str, value: Value) -> Result<EvalRow, RowProblem> {
        let mut row = row();
        row[field] = value;
        EvalRow::parse(1, &row, "fruit")
    }

    #[test]
    fn names_say_data_set_and_split() {
        for name in ["x/bird_seen.jsonl", "bird_seen.jsonl.gz", "bird_seen.json", "bird_seen"] {
            let name = EvalSetName::from_file_name(Path::new(name)).unwrap();
            let expected = ("bird", Split::Seen, "bird");
            assert_eq!((name.dataset.as_str(), name.split, &*name.super_category), expected);
        }
        let unseen = EvalSetName::from_file_name(Path::new("my_cars_unseen.jsonl")).unwrap();
        assert_eq!((&*unseen.dataset, unseen.split), ("my_cars", Split::Unseen));
        for name in ["bird.jsonl", "_seen.jsonl", "bird_all.jsonl", ".."] {
            assert!(EvalSetName::from_file_name(Path::new(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn optional_fields_and_the_released_category() {
        assert_eq!(with("options", Value::Null).unwrap().options.len(), 0);
        assert_eq!(with("question", json!("Which?")).unwrap().super_category, "fruit");
        assert_eq!(with("super_category", json!("citrus")).unwrap().super_category, "citrus");
        for (path, expected) in [
            ("fgvc_aircraft/data/images/1.jpg", "aircraft"),
            ("bird_200/images/1.jpg", "object"),
            ("birds/1.jpg", "bird"),
            ("stanford-cars/cars_test/1.jpg", "car"),
            ("flower102/jpg/1.jpg", "flower"),
            ("Aircraft/1.jpg", "object"),
        ] {
            let row = with("image_path", json!(path)).unwrap();
            assert_eq!(row.released_super_category(), expected, "{path}");
        }
    }

    #[test]
    fn the_truth_is_the_option_that_a_reader_takes_it_for() {
        for truth in ["lime", "Lime\n", "<answer>Lime</answer>"] {
            assert_eq!(with("ground_truth", json!(truth)).unwrap().ground_truth, "Lime", "{truth}");
        }
        let row = json!({"image_path": "a", "question": "?", "options": ["Jalapen\u{303}o", "Lime "],
            "ground_truth": "Jalape\u{f1}o"});
        assert_eq!(EvalRow::parse(1, &row, "").unwrap().options, ["Jalape\u{f1}o", "Lime"]);
    }

    #[test]
    fn aliases_of_rows_are_those_of_the_set() {
        let dir = tempfile::tempdir().unwrap();
        let read = |second: &str| {
            let path = dir.path().join("fruit_seen.jsonl");
            let row = |truth: &str, alias: &str| json!({"image_path": "a", "question": "?", "options": ["Lime", "Lemon"], "ground_truth": truth, "alias": alias});
            std::fs::write(&path, format!("{}\n{}\n", row("Lime", "Limette"), row("Lemon", second))).unwrap();
            read_eval_rows(&path, EvalSetName::from_file_name(&path).unwrap())
        };
        let set = read("Citron").unwrap();
        assert_eq!(
            (set.aliases.of("lime"), set.aliases.of("Lemon")),
            (&["Limette".into()][..], &["Citron".into()][..])
        );
        for bad in ["Limette", "lime"] {
            let error = read(bad).unwrap_err().to_string();
            assert!(error.contains("fruit_seen.jsonl") && error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn every_bad_row_says_what_is_wrong() {
        let not_a_string = |found| RowProblem::WrongType { field: "ground_truth".into(), expected: "a string", found };
        let cases = [
            (with("image_path", Value::Null), RowProblem::NoImage("image_path".into())),
            (with("ground_truth", json!(7)), not_a_string("a number")),
            (with("ground_truth", json!(["Lime"])), not_a_string("a list")),
            (with("ground_truth", json!(" ")), RowProblem::Empty("ground_truth".into())),
            (with("ground_truth", json!("limes")), RowProblem::TruthNotAnOption("limes".into())),
            (with("options", json!(["Lime"])), RowProblem::TooFewOptions(1)),
            (with("options", json!(["Lime", "Lime"])), RowProblem::RepeatedOption("Lime".into())),
            (with("options", json!(["Lime", ""])), RowProblem::Empty("options".into())),
            (with("options", json!(["Lime", "_"])), RowProblem::Empty("options".into())),
            (
                with("options", json!(["Lime", "Key_Lime", " key  lime"])),
                RowProblem::AlikeOptions("Key_Lime".into(), "key  lime".into()),
            ),
            (with("videos", json!(["a.mp4"])), RowProblem::Unread("videos".into())),
            (
                with("question", json!("<|image_pad|>Which?")),
                RowProblem::ControlToken { field: "question".into(), token: "<|image_pad|>" },
            ),
            (
                with("options", json!(["Lime", "Lemon<|im_end|>"])),
                RowProblem::ControlToken { field: "options".into(), token: "<|im_end|>" },
            ),
            (
                with("ground_truth", json!("Li\u{1}me")),
                RowProblem::Unmatchable { truth: "Li\u{1}me".into(), reason: Unmatchable::Control },
            ),
            (with("image_path", json!("https://x.org/a.jpg")), RowProblem::ImageUrl("https://x.org/a.jpg".into())),
            (EvalRow::parse(1, &json!(["x"]), ""), RowProblem::NotAnObject("list")),
            (EvalRow::parse(1, &json!({"image_path": "a"}), ""), RowProblem::MissingField("question".into())),
        ];
        for (found, expected) in cases {
            assert_eq!(found.unwrap_err(), expected);
        }
    }
}
