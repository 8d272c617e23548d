//! `fieldmark data check`: reads any data file whole and reports rows, images, classes and every problem with file and row.
//! The kind of a file is decided by its content: the fields of its first row, or a label table's header.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use image::ImageReader;
use serde_json::Value;

use crate::error::{DataError, RowProblem};
use crate::eval_rows::{EvalRow, EvalSetName};
use crate::images::ImageRoots;
use crate::labels::{SourceSplit, label_rows};
use crate::reader::{ReadLimits, Records, parse_records, read_text};
use crate::sharegpt::ShareGptFormat;
use crate::tapo_rows::TapoRow;

/// What kind of rows a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKind {
    /// Conversations for supervised fine-tuning.
    ShareGpt,
    /// Evaluation questions.
    EvalRows,
    /// TAPO triplets.
    TapoRows,
    /// A label table of a folder of photographs.
    Labels,
}

impl fmt::Display for DataKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ShareGpt => "conversations (ShareGPT)",
            Self::EvalRows => "evaluation rows",
            Self::TapoRows => "TAPO triplets",
            Self::Labels => "labelled photographs",
        })
    }
}

/// What a data file holds. Printed, it is a summary followed by one line for each problem.
#[derive(Debug)]
pub struct DataReport {
    /// The file.
    pub file: PathBuf,
    /// What its rows are.
    pub kind: DataKind,
    /// All rows, bad ones included.
    pub rows: usize,
    /// Rows in order.
    pub good_rows: usize,
    /// Different image paths in the good rows.
    pub images: usize,
    /// How many of them are there and have an image's header.
    pub images_found: usize,
    /// How many are not there.
    pub images_missing: usize,
    /// The folder that images were looked for in.
    pub image_folder: PathBuf,
    /// Rows of each class; of conversations, the text of the last `<answer>` where there is one, else the whole response.
    pub classes: BTreeMap<String, usize>,
    /// What is no error but should be known.
    pub notes: Vec<String>,
    /// What is wrong, in the order of rows, then of images.
    pub problems: Vec<DataError>,
}

impl DataReport {
    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for DataReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.file.display(), self.kind)?;
        writeln!(f, "  rows      {} ({} good)", self.rows, self.good_rows)?;
        writeln!(
            f,
            "  images    {} ({} found, {} missing, looked for in {})",
            self.images,
            self.images_found,
            self.images_missing,
            self.image_folder.display()
        )?;
        writeln!(f, "  classes   {}", self.classes.len())?;
        write!(f, "  problems  {}", self.problems.len())?;
        for note in &self.notes {
            write!(f, "\n  note: {note}")?;
        }
        for problem in &self.problems {
            write!(f, "\n{problem}")?;
        }
        Ok(())
    }
}

/// Reads a data file whole: ShareGPT, evaluation or TAPO rows (JSON or JSONL, `.gz` too), or a label table.
///
/// Images are looked for in `images`, else beside the file. Where that finds not one image, the file is taken to travel
/// without them: a note says so, and missing images are not listed one by one.
///
/// # Errors
/// What makes the file unreadable as a whole, or of no known kind. Bad rows are in [`DataReport::problems`].
pub fn check_file(path: &Path, images: Option<&ImageRoots>) -> Result<DataReport, DataError> {
    let roots = images.cloned().unwrap_or_else(|| ImageRoots::beside(path));
    let (text, gzipped) = read_text(path, ReadLimits::default())?;
    if is_table(&text) {
        let tally = Tally::new(path, DataKind::Labels).labels(&text)?;
        return Ok(tally.finish(&roots));
    }
    let records = parse_records(path, &text, gzipped)?;
    let Some(kind) = kind_of_rows(&records) else {
        return Err(DataError::file(
            path,
            match first_fields(&records) {
                Some(fields) => RowProblem::UnknownKind(fields).to_string(),
                None => "no rows; give a file with rows".into(),
            },
        ));
    };
    Ok(Tally::new(path, kind).records(records).finish(&roots))
}

/// A label table is a text whose first line has the required columns.
fn is_table(text: &str) -> bool {
    let header = text.trim_start_matches('\u{feff}').lines().next();
    let header: Vec<&str> = header.unwrap_or("").split(',').map(str::trim).collect();
    header.contains(&"path") && header.contains(&"class")
}

fn objects(records: &Records) -> impl Iterator<Item = &serde_json::Map<String, Value>> {
    let good = records.rows.iter().flatten();
    good.filter_map(|record| record.value.as_object())
}

fn kind_of_rows(records: &Records) -> Option<DataKind> {
    objects(records).find_map(|row| {
        let has = |name: &str| row.contains_key(name);
        if has("messages") || has("conversations") {
            Some(DataKind::ShareGpt)
        } else if has("ground_truth") || has("image_path") {
            Some(DataKind::EvalRows)
        } else if has("problem") {
            Some(DataKind::TapoRows)
        } else {
            None
        }
    })
}

fn first_fields(records: &Records) -> Option<String> {
    if records.rows.is_empty() {
        return None;
    }
    let names = objects(records).next();
    let names = names.map(|row| row.keys().cloned().collect::<Vec<_>>().join(", "));
    Some(names.filter(|names| !names.is_empty()).unwrap_or("(none)".into()))
}

/// What is collected row by row.
struct Tally {
    file: PathBuf,
    kind: DataKind,
    rows: usize,
    good_rows: usize,
    images: BTreeMap<PathBuf, usize>,
    classes: BTreeMap<String, usize>,
    notes: Vec<String>,
    problems: Vec<DataError>,
    truth_first: usize,
    truth_inside_distractor: usize,
    with_options: usize,
    without_positive: usize,
    without_negative: usize,
}

impl Tally {
    fn new(file: &Path, kind: DataKind) -> Self {
        Self {
            file: file.to_path_buf(),
            kind,
            rows: 0,
            good_rows: 0,
            images: BTreeMap::new(),
            classes: BTreeMap::new(),
            notes: Vec::new(),
            problems: Vec::new(),
            truth_first: 0,
            truth_inside_distractor: 0,
            with_options: 0,
            without_positive: 0,
            without_negative: 0,
        }
    }

    fn good(&mut self, row: usize, images: impl IntoIterator<Item = PathBuf>, class: &str) {
        self.good_rows += 1;
        for image in images {
            self.images.entry(image).or_insert(row);
        }
        *self.classes.entry(class.to_owned()).or_insert(0) += 1;
    }

    fn records(mut self, records: Records) -> Self {
        let category = EvalSetName::from_file_name(&self.file);
        let category = category.map_or(String::new(), |name| name.super_category);
        let mut format = None;
        for record in records.rows {
            self.rows += 1;
            let record = match record {
                Ok(record) => record,
                Err(problem) => {
                    self.problems.push(problem);
                    continue;
                }
            };
            let (row, value) = (record.row, &record.value);
            let checked = match self.kind {
                DataKind::ShareGpt => {
                    if format.is_none() {
                        format = ShareGptFormat::detect(value);
                    }
                    let format = format.clone().unwrap_or_default();
                    format.parse(row, value).map(|example| {
                        let class = answer(example.response()).to_owned();
                        self.good(row, example.images, &class);
                    })
                }
                DataKind::EvalRows => EvalRow::parse(row, value, &category).map(|eval| {
                    self.options(&eval);
                    self.good(row, [eval.image_path], &eval.ground_truth);
                }),
                DataKind::TapoRows | DataKind::Labels => TapoRow::parse(row, value).map(|tapo| {
                    self.without_positive += usize::from(tapo.positive.is_none());
                    self.without_negative += usize::from(tapo.negative.is_none());
                    let images = [Some(tapo.anchor), tapo.positive, tapo.negative].into_iter().flatten();
                    self.good(row, images, &tapo.answer);
                }),
            };
            if let Err(problem) = checked {
                self.problems.push(DataError::row(&self.file, row, problem));
            }
        }
        self
    }

    fn labels(mut self, text: &str) -> Result<Self, DataError> {
        let (_, rows) = label_rows(&self.file, text)?;
        let mut counts = [0; 2];
        let mut families = BTreeSet::new();
        for row in rows {
            self.rows += 1;
            match row {
                Ok(photo) => {
                    counts[usize::from(photo.split == SourceSplit::Test)] += 1;
                    families.insert(photo.super_category);
                    self.good(photo.row, [photo.path], &photo.class);
                }
                Err(problem) => self.problems.push(problem),
            }
        }
        self.notes.push(format!(
            "{} training and {} test photographs, {} super-categories",
            counts[0],
            counts[1],
            families.len()
        ));
        Ok(self)
    }

    fn options(&mut self, row: &EvalRow) {
        if row.options.is_empty() {
            return;
        }
        let plain = |text: &str| text.to_lowercase().replace('_', " ");
        let truth = plain(&row.ground_truth);
        let mut distractors = row.options.iter().filter(|option| **option != row.ground_truth);
        self.with_options += 1;
        self.truth_first += usize::from(row.options[0] == row.ground_truth);
        self.truth_inside_distractor += usize::from(distractors.any(|option| plain(option).contains(&truth)));
    }

    fn option_notes(&mut self) {
        if self.with_options > 0 && self.truth_first == self.with_options {
            self.notes.push(format!(
                "the truth is the first option in all {} rows with options; shuffle them",
                self.with_options
            ));
        }
        if self.truth_inside_distractor > 0 {
            self.notes.push(format!(
                "in {} rows another option contains the truth, so inclusion counts that wrong choice as right; score strictly",
                self.truth_inside_distractor
            ));
        }
    }

    fn finish(mut self, roots: &ImageRoots) -> DataReport {
        self.option_notes();
        if self.without_positive > 0 {
            let rows = self.without_positive;
            self.notes.push(format!("{rows} rows have no positive; train with tapo.positive_rollouts = 0"));
        }
        if self.without_negative > 0 {
            self.notes.push(format!(
                "{} rows have no negative; train with tapo.negative = \"patches\", or with tapo.loss.gamma = eta2 = 0",
                self.without_negative
            ));
        }
        let mut by_row: Vec<(usize, PathBuf)> =
            std::mem::take(&mut self.images).into_iter().map(|(image, row)| (row, image)).collect();
        by_row.sort();
        let total = by_row.len();
        let (mut found, mut missing) = (0, Vec::new());
        for (row, image) in by_row {
            let problem = match roots.find(&image) {
                Some(file) => match unreadable(&file) {
                    None => {
                        found += 1;
                        continue;
                    }
                    Some(message) => RowProblem::ImageUnreadable { path: file.display().to_string(), message },
                },
                None => {
                    missing.push((row, image));
                    continue;
                }
            };
            self.problems.push(DataError::row(&self.file, row, problem));
        }
        let images_missing = missing.len();
        if total > 0 && images_missing == total {
            self.notes.push(format!(
                "none of the images is in {}; name the folder that holds them to have them checked",
                roots.folder().display()
            ));
        } else {
            self.problems.extend(missing.into_iter().map(|(row, image)| {
                let problem = RowProblem::ImageNotFound(image.display().to_string());
                DataError::row(&self.file, row, problem)
            }));
        }
        DataReport {
            file: self.file,
            kind: self.kind,
            rows: self.rows,
            good_rows: self.good_rows,
            images: total,
            images_found: found,
            images_missing,
            image_folder: roots.folder().to_path_buf(),
            classes: self.classes,
            notes: self.notes,
            problems: self.problems,
        }
    }
}

/// What the decoder says about a file whose header is no image's.
fn unreadable(file: &Path) -> Option<String> {
    let reader = ImageReader::open(file).and_then(ImageReader::with_guessed_format);
    match reader {
        Ok(reader) => reader.into_dimensions().err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

fn answer(response: &str) -> &str {
    let block = response.rfind("<answer>").map(|start| &response[start + "<answer>".len()..]);
    let block = block.and_then(|block| block.split("</answer>").next());
    block.unwrap_or(response).trim()
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        RgbImage::new(3, 2).save(dir.path().join("a.png")).unwrap();
        std::fs::write(dir.path().join("text.png"), "no image").unwrap();
        dir
    }

    fn check(dir: &tempfile::TempDir, name: &str) -> DataReport {
        check_file(&dir.path().join(name), None).unwrap()
    }

    #[test]
    fn every_bad_row_and_image_is_listed_with_its_row() {
        let rows = r#"{"image_path":"a.png","question":"?","options":["Collie","Border Collie"],"ground_truth":"Collie"}
{"image_path":"b.png","question":"?","options":["Lime","Lemon"],"ground_truth":"Lime"}
{"image_path":"text.png","question":"?","options":["Lime","Lemon"],"ground_truth":"Lime"}
{"question":"?","options":["Lime","Lemon"],"ground_truth":"Lime"}
{"image_path":"a.png","question":"?","options":["Lime","Lemon"],"ground_truth":5}
{"image_path":
"#;
        let dir = folder(&[("fruit_seen.jsonl", rows)]);
        let report = check(&dir, "fruit_seen.jsonl");
        assert_eq!((report.kind, report.rows, report.good_rows), (DataKind::EvalRows, 6, 3));
        assert_eq!((report.images, report.images_found, report.images_missing), (3, 1, 1));
        assert_eq!(report.classes, BTreeMap::from([("Collie".into(), 1), ("Lime".into(), 2)]));
        let text = report.to_string();
        let file = dir.path().join("fruit_seen.jsonl");
        for (row, says) in [
            (4, "no image; name one in \"image_path\""),
            (5, "field \"ground_truth\" is a number, not a string"),
            (6, "not JSON"),
            (3, "text.png cannot be read"),
            (2, "image b.png not found"),
        ] {
            let start = format!("{}:{row}: ", file.display());
            let line = text.lines().find(|line| line.starts_with(&start));
            assert!(line.is_some_and(|line| line.contains(says)), "{row}: {text}");
        }
        assert!(text.contains("problems  5\n"), "{text}");
        assert!(text.contains("first option in all 3 rows") && text.contains("in 1 rows another option"));
        assert!(!report.is_clean());
    }

    #[test]
    fn kinds_are_told_apart_by_content() {
        let dir = folder(&[
            (
                "chat",
                r#"[{"messages":[{"role":"user","content":"<image>?"},{"role":"assistant","content":"<think>x</think><answer> Lime </answer>"}],"images":["a.png"]}]"#,
            ),
            (
                "tapo",
                r#"{"problem":"<image>?","answer":"Lime","images":["a.png"],"image_noisy":["a.png"],"image_aug":["a.png"]}"#,
            ),
            ("table", "path,class,super_category,split\na.png,Lime,Citrus,test\n,Lime,Citrus,test\n"),
            ("other", "{\"x\": 1, \"y\": 2}\n"),
            ("empty", ""),
        ]);
        for (name, kind, problems) in
            [("chat", DataKind::ShareGpt, 0), ("tapo", DataKind::TapoRows, 0), ("table", DataKind::Labels, 1)]
        {
            let report = check(&dir, name);
            assert_eq!((report.kind, report.images_found, report.problems.len()), (kind, 1, problems));
            assert_eq!(report.classes, BTreeMap::from([("Lime".into(), 1)]));
        }
        let other = check_file(&dir.path().join("other"), None).unwrap_err().to_string();
        assert!(other.contains("it has the fields x, y"), "{other}");
        assert!(check_file(&dir.path().join("empty"), None).unwrap_err().to_string().contains("no rows"));
    }

    #[test]
    fn a_file_without_its_images_gets_one_note() {
        let rows = "{\"image_path\":\"x/a.jpg\",\"question\":\"?\",\"ground_truth\":\"Lime\"}\n";
        let dir = folder(&[("fruit_seen.jsonl", rows)]);
        let report = check(&dir, "fruit_seen.jsonl");
        assert!(report.is_clean());
        assert_eq!((report.images, report.images_missing, report.notes.len()), (1, 1, 1));
    }
}
