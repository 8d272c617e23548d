//! Triplets as training samples, from a file of stage-2 rows or from a folder of labelled photographs.
//!
//! A triplet (arXiv 2602.07605, section 4.3) has an anchor, a positive of the same class, and a negative of the most
//! similar other class. Each of the three images has its own token ids, because their sizes may differ.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use fieldmark_data::{
    DataError, ImageRoots, PromptTemplate, RowProblem, SinglePhotoPolicy, TapoRow, build_triplets, read_tapo_rows,
};
use fieldmark_processor::{DecodeOptions, Message, Photo, ProcessOptions, Processor, ProcessorError, Sequence};
use fieldmark_stream::{RandomStream, StreamKey};
use fieldmark_train::{
    TrainError,
    tapo::{
        SampleFacts, TripletSource,
        rollout::{BlackPatches, TripletPrompt},
    },
};

use super::{held_out::take_out, labels::Labels};
use crate::error::RunError;

/// How triplets become samples.
#[derive(Debug, Clone)]
pub struct TripletSettings {
    /// How photographs are decoded.
    pub decode: DecodeOptions,
    /// The prompt template.
    pub prompt: PromptTemplate,
    /// Largest number of tokens in a prompt, image included. A longer one is an error.
    pub max_tokens: usize,
    /// Whether responses are also sampled from positive images. If not, a row needs no positive.
    pub positives: bool,
    /// The negative images.
    pub negatives: Negatives,
}

impl Default for TripletSettings {
    fn default() -> Self {
        Self {
            decode: DecodeOptions::default(),
            prompt: PromptTemplate::Rl,
            max_tokens: 4096,
            positives: true,
            negatives: Negatives::Photographs,
        }
    }
}

impl TripletSettings {
    /// Returns settings for the anchor images alone, as a validation set needs them.
    pub fn anchors_alone(self) -> Self {
        Self { positives: false, negatives: Negatives::None, ..self }
    }
}

/// The kind of negative images.
#[derive(Debug, Clone)]
pub enum Negatives {
    /// None, because the loss does not use them.
    None,
    /// A photograph of the most similar other class.
    Photographs,
    /// The anchor with black patches, drawn with random streams of this key.
    Patches(BlackPatches, StreamKey),
}

/// How to make triplets from a folder of labelled photographs.
#[derive(Debug, Clone)]
pub struct LabelSettings {
    /// The question asked about each photograph.
    pub question: String,
    /// Number of classes that training never sees. `seed` decides which.
    pub unseen: usize,
    /// Whether a class with a single photograph may use it as its own positive; otherwise such a class is an error.
    pub reuse_anchor: bool,
    /// Decides which classes are unseen and which photographs form a triplet.
    pub seed: u64,
}

/// The triplets of a run.
#[derive(Debug)]
pub struct Triplets {
    processor: Processor,
    settings: TripletSettings,
    rows: Vec<TripletRow>,
    by_name: HashMap<String, usize>,
}

/// One triplet with its files.
#[derive(Debug)]
struct TripletRow {
    name: String,
    /// The user's turn, with `<image>` in place of the image.
    prompt: String,
    system: Option<String>,
    truth: String,
    /// File of the anchor image.
    anchor: PathBuf,
    /// File of the positive image, if responses are sampled from it.
    positive: Option<PathBuf>,
    /// File of the negative image, if it is a photograph.
    negative: Option<PathBuf>,
}

impl Triplets {
    /// Reads a file of triplets. Every image must exist under `roots`. `processor` decides the image sizes.
    ///
    /// # Errors
    /// Returns an error for the first bad row or missing image.
    pub fn from_file(
        file: &Path,
        roots: &ImageRoots,
        processor: Processor,
        settings: TripletSettings,
    ) -> Result<Self, RunError> {
        let rows = read_tapo_rows(file)?.into_iter().map(|row| from_row(file, roots, &settings, row));
        let rows = rows.collect::<Result<_, _>>()?;
        Ok(Self::of(processor, settings, rows))
    }

    /// Makes triplets from the training photographs of a folder with `labels.csv`.
    ///
    /// # Errors
    /// Returns an error if the table or a photograph cannot be read, or a class has too few photographs.
    pub fn from_labels(
        folder: &Path,
        labels: &LabelSettings,
        processor: Processor,
        settings: TripletSettings,
    ) -> Result<Self, RunError> {
        let rows = from_labels(folder, labels, &settings)?;
        Ok(Self::of(processor, settings, rows))
    }

    fn of(processor: Processor, settings: TripletSettings, rows: Vec<TripletRow>) -> Self {
        let by_name = rows.iter().enumerate().map(|(i, row)| (row.name.clone(), i)).collect();
        Self { processor, settings, rows, by_name }
    }

    /// The photographs of all rows, in their order.
    pub fn photographs(&self) -> impl Iterator<Item = &Path> {
        self.rows.iter().flat_map(|row| {
            let others = [&row.positive, &row.negative].into_iter().flatten();
            std::iter::once(&row.anchor).chain(others).map(PathBuf::as_path)
        })
    }

    /// Removes `count` rows, drawn with `stream`, and returns them as a set of questions about their anchor images. The
    /// others keep their order.
    pub fn hold_out(&mut self, count: usize, stream: &mut RandomStream) -> Self {
        let mut rows = std::mem::take(&mut self.rows);
        let held = take_out(&mut rows, count, stream);
        *self = Self::of(self.processor.clone(), self.settings.clone(), rows);
        let alone = |row| TripletRow { positive: None, negative: None, ..row };
        let held = held.into_iter().map(alone).collect();
        Self::of(self.processor.clone(), self.settings.clone().anchors_alone(), held)
    }

    fn open_photo(&self, row: &TripletRow, image: &Path) -> Result<Photo, TrainError> {
        Photo::open(image, &self.settings.decode).map_err(|error| in_row(row, &error))
    }

    fn sequence(&self, row: &TripletRow, photo: &Photo) -> Result<Sequence, TrainError> {
        let patched = self.processor.images.process(photo).map_err(|error| in_row(row, &error))?;
        let mut messages: Vec<Message> = row.system.iter().map(Message::system).collect();
        messages.push(Message::user(&row.prompt));
        let options = ProcessOptions::prompt().with_max_tokens(self.settings.max_tokens);
        Ok(self.processor.encode(&row.name, &messages, vec![patched], options)?)
    }
}

impl TripletSource for Triplets {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn prompt(&self, number: usize, epoch: usize) -> Result<TripletPrompt, TrainError> {
        let row = &self.rows[number];
        let anchor = self.open_photo(row, &row.anchor)?;
        let open = |file: &PathBuf| self.open_photo(row, file);
        let positive = row.positive.as_ref().map(open).transpose()?;
        let negative = match &self.settings.negatives {
            Negatives::None => None,
            Negatives::Photographs => row.negative.as_ref().map(open).transpose()?,
            Negatives::Patches(patches, run) => {
                Some(patches.negative(&anchor, run, epoch, number).map_err(|error| in_row(row, &error))?)
            }
        };
        Ok(TripletPrompt {
            anchor: self.sequence(row, &anchor)?,
            positive: positive.map(|photo| self.sequence(row, &photo)).transpose()?,
            negative: negative.map(|photo| self.sequence(row, &photo)).transpose()?,
            truth: row.truth.clone(),
        })
    }

    fn facts(&self, prompt: &TripletPrompt) -> SampleFacts {
        let Some(row) = self.by_name.get(&prompt.anchor.name).and_then(|&row| self.rows.get(row)) else {
            return SampleFacts::default();
        };
        SampleFacts {
            anchor: Some(row.anchor.clone()),
            positive: row.positive.clone(),
            negative: row.negative.clone(),
            prompt: Some(row.prompt.clone()),
        }
    }
}

fn in_row(row: &TripletRow, error: &ProcessorError) -> TrainError {
    TrainError::Sample { row: row.name.clone(), reason: error.to_string() }
}

fn row(
    name: String,
    template: PromptTemplate,
    question: &str,
    truth: &str,
    anchor: PathBuf,
    [positive, negative]: [Option<PathBuf>; 2],
) -> TripletRow {
    let prompt = template.render(question, &[]);
    TripletRow { name, prompt: prompt.user, system: prompt.system, truth: truth.into(), anchor, positive, negative }
}

fn from_row(
    file: &Path,
    roots: &ImageRoots,
    settings: &TripletSettings,
    tapo: TapoRow,
) -> Result<TripletRow, DataError> {
    let in_row = |problem| DataError::Row { file: file.into(), row: tapo.row, problem };
    let find = |image: &PathBuf| {
        roots.find(image).ok_or_else(|| in_row(RowProblem::ImageNotFound(image.display().to_string())))
    };
    let other = |image: &Option<PathBuf>, needed: bool, problem: RowProblem| match image {
        _ if !needed => Ok(None),
        Some(image) => find(image).map(Some),
        None => Err(in_row(problem)),
    };
    let positive = other(&tapo.positive, settings.positives, RowProblem::NoPositive)?;
    let negatives = matches!(settings.negatives, Negatives::Photographs);
    let negative = other(&tapo.negative, negatives, RowProblem::NoNegative)?;
    let name = format!("{}:{}", file.display(), tapo.row);
    Ok(row(name, settings.prompt, &tapo.problem, &tapo.answer, find(&tapo.anchor)?, [positive, negative]))
}

fn from_labels(folder: &Path, made: &LabelSettings, settings: &TripletSettings) -> Result<Vec<TripletRow>, RunError> {
    let labels = Labels::open(folder, made.unseen, made.seed)?;
    let photos = labels.training();
    let similar = labels.similar(&photos, settings.decode)?;
    let reuse = made.reuse_anchor || !settings.positives;
    let single = if reuse { SinglePhotoPolicy::ReuseAnchor } else { SinglePhotoPolicy::Refuse };
    let mut stream = RandomStream::new(made.seed, &["triplets"]);
    let triplets = build_triplets(&photos, &similar, single, &mut stream)?;
    let negatives = matches!(settings.negatives, Negatives::Photographs);
    let rows = triplets.iter().map(|triplet| {
        let file = |photo| labels.folder.file(photo);
        let others = [settings.positives.then(|| file(triplet.positive)), negatives.then(|| file(triplet.negative))];
        let name = format!("{}:{}", labels.table.display(), triplet.anchor.row);
        row(name, settings.prompt, &made.question, &triplet.anchor.class, file(triplet.anchor), others)
    });
    Ok(rows.collect())
}
