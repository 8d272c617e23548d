//! Collects good rows, classes, images and problems of a data file, row by row.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Cursor, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use image::ImageReader;

use super::report::{DataKind, DataReport};
use crate::answer::{aliases::Aliases, reading::AnswerReading, truth::truth_text};
use crate::error::{DataError, RowProblem};
use crate::format::columns::{aliases, object};
use crate::format::conversations::SftExample;
use crate::format::eval_rows::{EvalRow, EvalSetName};
use crate::format::labels::{SourceSplit, label_rows};
use crate::format::reader::Records;
use crate::format::tapo_rows::TapoRow;
use crate::images::{ImageRoots, same_path};
use crate::row_image::RowImage;

/// The number of missing images whose likely cause is looked for.
const CAUSES: usize = 100;

/// What is wrong with an image, if anything. Its path is that of its file. The numbers are the images begun so far and
/// in all.
pub type ImageCheck<'a> = dyn Fn(&RowImage, usize, usize) -> Option<String> + Sync + 'a;

/// The counts and problems so far.
pub(super) struct Tally {
    file: PathBuf,
    kind: DataKind,
    rows: usize,
    good_rows: usize,
    /// The row and the image as it is written there, by the one way of writing its path.
    images: BTreeMap<RowImage, (usize, RowImage)>,
    classes: BTreeMap<String, usize>,
    notes: Vec<String>,
    problems: Vec<DataError>,
    truth_first: usize,
    truth_inside_distractor: usize,
    with_options: usize,
    without_positive: usize,
    without_negative: usize,
    without_image: usize,
    image_put_first: usize,
    without_options: usize,
    triplets: Vec<TapoRow>,
    /// Aliases, and all names that they must differ from.
    aliases: Aliases,
    names: BTreeSet<String>,
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
            without_image: 0,
            image_put_first: 0,
            without_options: 0,
            triplets: Vec::new(),
            aliases: Aliases::default(),
            names: BTreeSet::new(),
        }
    }

    fn good(&mut self, row: usize, images: impl IntoIterator<Item = RowImage>, class: &str) {
        self.good_rows += 1;
        for image in images {
            let same = match &image {
                RowImage::Path(path) => RowImage::Path(same_path(path)),
                RowImage::Bytes(_) => image.clone(),
            };
            self.images.entry(same).or_insert((row, image));
        }
        *self.classes.entry(class.to_owned()).or_insert(0) += 1;
    }

    pub(super) fn records(mut self, records: Records) -> Self {
        let category = EvalSetName::from_file_name(&self.file);
        let category = category.map_or(String::new(), |name| name.super_category);
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
                DataKind::Conversations => SftExample::parse(row, value).map(|example| {
                    self.without_image += usize::from(example.images.is_empty());
                    self.image_put_first += usize::from(example.image_put_first);
                    let class = class(example.response());
                    self.good(row, example.images, &class);
                }),
                DataKind::EvalRows => EvalRow::parse(row, value, &category).map(|eval| {
                    self.options(&eval);
                    self.name(&eval.ground_truth, object(value).and_then(aliases).unwrap_or_default());
                    self.names.extend(eval.options.iter().cloned());
                    self.good(row, [RowImage::Path(eval.image_path)], &eval.ground_truth);
                }),
                DataKind::TapoRows | DataKind::Labels => TapoRow::parse(row, value).map(|tapo| {
                    self.without_positive += usize::from(tapo.positive.is_none());
                    self.without_negative += usize::from(tapo.negative.is_none());
                    self.image_put_first += usize::from(tapo.image_put_first);
                    self.name(&tapo.answer, tapo.aliases.clone());
                    let images = [Some(&tapo.anchor), tapo.positive.as_ref(), tapo.negative.as_ref()];
                    self.good(row, images.into_iter().flatten().cloned(), &tapo.answer);
                    self.triplets.push(tapo);
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
                    self.name(&photo.class, photo.aliases);
                    self.good(photo.row, [RowImage::Path(photo.path)], &photo.class);
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

    fn name(&mut self, name: &str, aliases: Vec<String>) {
        self.aliases.add(name, aliases);
        self.names.insert(name.to_owned());
    }

    fn options(&mut self, row: &EvalRow) {
        if row.options.is_empty() {
            self.without_options += 1;
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

    fn row_notes(&mut self) {
        self.option_notes();
        let rows = |count: usize| format!("{count} {}", if count == 1 { "row has" } else { "rows have" });
        let mut note = |count: usize, text: &str| {
            if count > 0 {
                self.notes.push(format!("{} {text}", rows(count)));
            }
        };
        note(self.without_positive, "no positive; set tapo.positive_rollouts = 0");
        note(self.without_negative, "no negative; set tapo.negative = \"patches\", or tapo.loss.gamma = eta2 = 0");
        note(self.without_options, "no options; eval asks of them in the open world alone");
        note(self.without_image, "no image; the model learns from the text alone");
        note(self.image_put_first, "one image and no <image> in the text; the image is put first");
    }

    /// Ends the check. `told` says whether the user named the folder of the images.
    pub(super) fn finish(mut self, roots: &ImageRoots, told: bool, image: &ImageCheck<'_>) -> DataReport {
        self.row_notes();
        self.problems.extend(self.aliases.check(self.names.iter().map(String::as_str), &self.file).err());
        let mut by_row: Vec<(usize, RowImage)> = std::mem::take(&mut self.images).into_values().collect();
        by_row.sort();
        let total = by_row.len();
        let (mut files, mut missing) = (Vec::new(), Vec::new());
        for (row, path) in by_row {
            match roots.locate(&path) {
                Some(file) => files.push((row, file)),
                None => missing.push((row, path)),
            }
        }
        let problems = check_all(&files, image);
        let found = files.len() - problems.len();
        for (place, message) in problems {
            let (row, file) = &files[place];
            let problem = RowProblem::ImageUnreadable { path: file.name(), message };
            self.problems.push(DataError::row(&self.file, *row, problem));
        }
        let images_missing = missing.len();
        if !told && total > 0 && images_missing == total {
            self.notes.push(format!(
                "none of the images was found in {}; to check them, name their folder (--images)",
                roots.folder().display()
            ));
        } else {
            let file = &self.file;
            self.problems.extend(missing.into_iter().enumerate().map(|(count, (row, image))| {
                let beside = ImageRoots::beside(file);
                let problem = match image.path() {
                    Some(path) if beside.find(path).is_some() => RowProblem::ImageNotFound {
                        image: image.name(),
                        likely: Some("it is in the folder of the data file; leave out --images".into()),
                    },
                    Some(path) if count < CAUSES => roots.not_found(path),
                    _ => RowProblem::ImageNotFound { image: image.name(), likely: None },
                };
                DataError::row(file, row, problem)
            }));
        }
        for triplet in &self.triplets {
            // Missing images are already named.
            if let Err(problem @ RowProblem::SameImage(_)) = triplet.located(roots, [true, true]) {
                self.problems.push(DataError::row(&self.file, triplet.row, problem));
            }
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

/// Checks images on all cores. Returns the index of each bad one, in order, with what is wrong.
fn check_all(images: &[(usize, RowImage)], check: &ImageCheck<'_>) -> Vec<(usize, String)> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(images.len());
    let (begun, total) = (AtomicUsize::new(0), images.len());
    let work = || {
        let places = std::iter::from_fn(|| Some(begun.fetch_add(1, Ordering::Relaxed)));
        let images = places.map_while(|place| Some((place, &images.get(place)?.1)));
        let problem = |(place, image): (usize, &RowImage)| Some((place, check(image, place + 1, total)?));
        images.filter_map(problem).collect::<Vec<_>>()
    };
    let mut problems: Vec<(usize, String)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
    });
    problems.sort_unstable();
    problems
}

/// Returns the decoder's error if an image does not have the header of an image file.
pub(super) fn unreadable(image: &RowImage) -> Option<String> {
    match image {
        RowImage::Path(file) => match ImageReader::open(file) {
            Ok(reader) => header_problem(reader),
            Err(error) => Some(error.to_string()),
        },
        RowImage::Bytes(image) => header_problem(ImageReader::new(Cursor::new(&image.bytes[..]))),
    }
}

fn header_problem<R: BufRead + Seek>(reader: ImageReader<R>) -> Option<String> {
    match reader.with_guessed_format() {
        Ok(reader) => reader.into_dimensions().err().map(|error| error.to_string()),
        Err(error) => Some(error.to_string()),
    }
}

/// The class of a conversation: its last answer, otherwise its whole response.
fn class(response: &str) -> String {
    let reading = AnswerReading::of(response);
    truth_text(reading.blocks().last().copied().unwrap_or(response))
}
