//! Collects good rows, classes, images and problems of a data file, row by row.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use image::ImageReader;

use super::report::{DataKind, DataReport};
use crate::error::{DataError, RowProblem};
use crate::format::eval_rows::{EvalRow, EvalSetName};
use crate::format::labels::{SourceSplit, label_rows};
use crate::format::reader::Records;
use crate::format::sharegpt::ShareGptFormat;
use crate::format::tapo_rows::TapoRow;
use crate::images::ImageRoots;

/// What is wrong with an image file, if anything. The numbers are the images begun so far and in all.
pub type ImageCheck<'a> = dyn Fn(&Path, usize, usize) -> Option<String> + Sync + 'a;

/// The counts and problems so far.
pub(super) struct Tally {
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
    pub(super) fn new(file: &Path, kind: DataKind) -> Self {
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

    pub(super) fn records(mut self, records: Records) -> Self {
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

    pub(super) fn labels(mut self, text: &str) -> Result<Self, DataError> {
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
                "the truth is the first option in all {} rows with options; shuffle the options",
                self.with_options
            ));
        }
        if self.truth_inside_distractor > 0 {
            self.notes.push(format!(
                "in {} rows another option contains the truth, so that matching by inclusion accepts it; match strictly",
                self.truth_inside_distractor
            ));
        }
    }

    pub(super) fn finish(mut self, roots: &ImageRoots, image: &ImageCheck<'_>) -> DataReport {
        self.option_notes();
        if self.without_positive > 0 {
            let rows = self.without_positive;
            self.notes.push(format!("{rows} rows have no positive; set tapo.positive_rollouts = 0"));
        }
        if self.without_negative > 0 {
            self.notes.push(format!(
                "{} rows have no negative; set tapo.negative = \"patches\", or tapo.loss.gamma = eta2 = 0",
                self.without_negative
            ));
        }
        let mut by_row: Vec<(usize, PathBuf)> =
            std::mem::take(&mut self.images).into_iter().map(|(image, row)| (row, image)).collect();
        by_row.sort();
        let total = by_row.len();
        let (mut files, mut missing) = (Vec::new(), Vec::new());
        for (row, path) in by_row {
            match roots.find(&path) {
                Some(file) => files.push((row, file)),
                None => missing.push((row, path)),
            }
        }
        let problems = check_all(&files, image);
        let found = files.len() - problems.len();
        for (place, message) in problems {
            let (row, file) = &files[place];
            let problem = RowProblem::ImageUnreadable { path: file.display().to_string(), message };
            self.problems.push(DataError::row(&self.file, *row, problem));
        }
        let images_missing = missing.len();
        if total > 0 && images_missing == total {
            self.notes.push(format!(
                "none of the images was found in {}; to check them, name their folder (--images)",
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

/// Checks image files on all cores. Returns the index of each bad one, in order, with what is wrong.
fn check_all(files: &[(usize, PathBuf)], image: &ImageCheck<'_>) -> Vec<(usize, String)> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(files.len());
    let (begun, total) = (AtomicUsize::new(0), files.len());
    let work = || {
        let places = std::iter::from_fn(|| Some(begun.fetch_add(1, Ordering::Relaxed)));
        let files = places.map_while(|place| Some((place, &files.get(place)?.1)));
        let problem = |(place, file): (usize, &PathBuf)| Some((place, image(file, place + 1, total)?));
        files.filter_map(problem).collect::<Vec<_>>()
    };
    let mut problems: Vec<(usize, String)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    problems.sort_unstable();
    problems
}

/// Returns the decoder's error if a file does not have the header of an image.
pub(super) fn header_problem(file: &Path) -> Option<String> {
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
