//! Triplets as training samples, from a file of stage-2 rows or from a folder of labelled photographs.
//!
//! A triplet (arXiv 2602.07605, section 4.3) has an anchor, a positive of the same class, and a negative of the most
//! similar other class. Each of the three images has its own token ids, because their sizes may differ.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use fieldmark_data::{
    Aliases, DataError, HeldOutClasses, ImageRoots, PromptTemplate, RowImage, RowProblem, SinglePhotoPolicy, TapoRow,
    Unseen, build_triplets, read_tapo_rows,
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

use super::{held_out::take_out, labels::Labels, photo};
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
    /// Other names of classes, besides those in the data.
    pub aliases: Aliases,
    /// Classes that no row of a file may show or name.
    pub held_out: HeldOutClasses,
}

impl Default for TripletSettings {
    fn default() -> Self {
        Self {
            decode: DecodeOptions::default(),
            prompt: PromptTemplate::Rl,
            max_tokens: 4096,
            positives: true,
            negatives: Negatives::Photographs,
            aliases: Aliases::default(),
            held_out: HeldOutClasses::default(),
        }
    }
}

impl TripletSettings {
    /// Returns settings for the anchor images alone, as a validation set needs them. Nothing is learned from it, so it may
    /// show held-out classes.
    pub fn anchors_alone(self) -> Self {
        Self { positives: false, negatives: Negatives::None, held_out: HeldOutClasses::default(), ..self }
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
    /// The classes that training never sees.
    pub unseen: Unseen,
    /// Whether a class with a single photograph may use it as its own positive; otherwise such a class is an error.
    pub reuse_anchor: bool,
    /// Decides which photographs form a triplet.
    pub seed: u64,
}

/// The triplets of a run.
#[derive(Debug)]
pub struct Triplets {
    processor: Processor,
    settings: TripletSettings,
    rows: Vec<TripletRow>,
    by_name: HashMap<String, usize>,
    notes: Vec<String>,
}

/// One triplet with its files.
#[derive(Debug)]
struct TripletRow {
    name: String,
    /// The user's turn, with `<image>` in place of the image.
    prompt: String,
    system: Option<String>,
    truth: String,
    aliases: Vec<String>,
    /// The anchor image.
    anchor: RowImage,
    /// The positive image, if responses are sampled from it.
    positive: Option<RowImage>,
    /// The negative image, if it is a photograph.
    negative: Option<RowImage>,
}

impl Triplets {
    /// Reads a file of triplets. Every image must exist under `roots`. `processor` decides the image sizes.
    ///
    /// # Errors
    /// Returns an error for the first bad row, for a missing image, for a negative with the content of its anchor or
    /// positive, or for a row with a held-out class.
    pub fn from_file(
        file: &Path,
        roots: &ImageRoots,
        processor: Processor,
        settings: TripletSettings,
    ) -> Result<Self, RunError> {
        let read = read_tapo_rows(file)?;
        let put_first = read.iter().filter(|row| row.image_put_first).count();
        let put_first = (put_first > 0).then(|| {
            let (file, total) = (file.display(), read.len());
            format!("{file}: {put_first} of {total} rows have no <image> in the text; the image is put first")
        });
        let answers = || read.iter().map(|row| row.answer.as_str());
        let notes = put_first.into_iter().chain(settings.aliases.unused_note(answers(), "data.aliases")).collect();
        let mut aliases = settings.aliases.clone();
        read.iter().for_each(|row| aliases.add(&row.answer, row.aliases.iter().cloned()));
        aliases.check(answers(), file)?;
        let settings = TripletSettings { aliases, ..settings };
        let rows = read.into_iter().map(|row| from_row(file, roots, &settings, row)).collect::<Result<_, _>>()?;
        Ok(Self { notes, ..Self::of(processor, settings, rows) })
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
        Self { processor, settings, rows, by_name, notes: Vec::new() }
    }

    /// What is worth saying once about the rows, such as that an image without a place in the text is put first.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The images of all rows, in their order.
    pub fn images(&self) -> impl Iterator<Item = &RowImage> {
        self.rows.iter().flat_map(|row| {
            let others = [&row.positive, &row.negative].into_iter().flatten();
            std::iter::once(&row.anchor).chain(others)
        })
    }

    /// The files of the photographs of all rows, in their order.
    pub fn photographs(&self) -> impl Iterator<Item = &Path> {
        self.images().filter_map(RowImage::path)
    }

    /// Removes `count` rows, drawn with `stream`, and returns them as a set of questions about their anchor images. The
    /// others keep their order.
    pub fn hold_out(&mut self, count: usize, stream: &mut RandomStream) -> Self {
        let mut rows = std::mem::take(&mut self.rows);
        let held = take_out(&mut rows, count, stream);
        let notes = std::mem::take(&mut self.notes);
        *self = Self { notes, ..Self::of(self.processor.clone(), self.settings.clone(), rows) };
        let alone = |row| TripletRow { positive: None, negative: None, ..row };
        let held = held.into_iter().map(alone).collect();
        Self::of(self.processor.clone(), self.settings.clone().anchors_alone(), held)
    }

    /// The truth of each row with its aliases, and the name of the row: file and row.
    pub fn truths(&self) -> impl Iterator<Item = (&str, &[String], &str)> {
        self.rows.iter().map(|row| (row.truth.as_str(), row.aliases.as_slice(), row.name.as_str()))
    }

    fn open_photo(&self, row: &TripletRow, image: &RowImage) -> Result<Photo, TrainError> {
        photo::open(image, &self.settings.decode).map_err(|error| in_row(row, &error))
    }

    fn sequence(&self, row: &TripletRow, photo: &Photo) -> Result<Sequence, TrainError> {
        let max_tokens = self.settings.max_tokens;
        let patched = self.processor.patch_one(&row.name, photo, Some(max_tokens));
        let patched = patched.map_err(|error| match error {
            ProcessorError::TooLong { .. } => error.into(),
            other => in_row(row, &other),
        })?;
        let mut messages: Vec<Message> = row.system.iter().map(Message::system).collect();
        messages.push(Message::user(&row.prompt));
        let options = ProcessOptions::prompt().with_max_tokens(max_tokens);
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
        let open = |image: &RowImage| self.open_photo(row, image);
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
            aliases: row.aliases.clone(),
        })
    }

    fn facts(&self, prompt: &TripletPrompt) -> SampleFacts {
        let Some(row) = self.by_name.get(&prompt.anchor.name).and_then(|&row| self.rows.get(row)) else {
            return SampleFacts::default();
        };
        let name = |image: &RowImage| PathBuf::from(image.name());
        SampleFacts {
            anchor: Some(name(&row.anchor)),
            positive: row.positive.as_ref().map(name),
            negative: row.negative.as_ref().map(name),
            prompt: Some(row.prompt.clone()),
        }
    }
}

fn in_row(row: &TripletRow, error: &ProcessorError) -> TrainError {
    TrainError::Sample { row: row.name.clone(), reason: error.to_string() }
}

fn row(
    name: String,
    settings: &TripletSettings,
    question: &str,
    truth: &str,
    anchor: RowImage,
    [positive, negative]: [Option<RowImage>; 2],
) -> TripletRow {
    let prompt = settings.prompt.render(question, &[]);
    let (prompt, system, aliases) = (prompt.user, prompt.system, settings.aliases.of(truth).to_vec());
    TripletRow { name, prompt, system, truth: truth.into(), aliases, anchor, positive, negative }
}

fn from_row(
    file: &Path,
    roots: &ImageRoots,
    settings: &TripletSettings,
    tapo: TapoRow,
) -> Result<TripletRow, DataError> {
    let in_row = |problem| DataError::Row { file: file.into(), row: tapo.row, problem };
    let negatives = matches!(settings.negatives, Negatives::Photographs);
    if settings.positives && tapo.positive.is_none() {
        return Err(in_row(RowProblem::NoPositive));
    }
    if negatives && tapo.negative.is_none() {
        return Err(in_row(RowProblem::NoNegative));
    }
    let TapoRow { anchor, positive, negative, .. } = tapo
        .located(roots, [settings.positives, negatives])
        .and_then(|found| {
            settings.held_out.check_triplet(&found)?;
            Ok(found)
        })
        .map_err(in_row)?;
    let name = format!("{}:{}", file.display(), tapo.row);
    Ok(row(name, settings, &tapo.problem, &tapo.answer, anchor, [positive, negative]))
}

fn from_labels(folder: &Path, made: &LabelSettings, settings: &TripletSettings) -> Result<Vec<TripletRow>, RunError> {
    let labels = Labels::open(folder, &made.unseen)?;
    let mut aliases = labels.folder.aliases()?;
    aliases.merge(&settings.aliases);
    aliases.check(labels.folder.photos.iter().map(|photo| photo.class.as_str()), &labels.table)?;
    let settings = &TripletSettings { aliases, ..settings.clone() };
    let photos = labels.training();
    let similar = labels.similar(&photos, settings.decode)?;
    let reuse = made.reuse_anchor || !settings.positives;
    let single = if reuse { SinglePhotoPolicy::ReuseAnchor } else { SinglePhotoPolicy::Refuse };
    let mut stream = RandomStream::new(made.seed, &["triplets"]);
    let triplets = build_triplets(&photos, &similar, single, &mut stream)?;
    let negatives = matches!(settings.negatives, Negatives::Photographs);
    let rows = triplets.iter().map(|triplet| {
        let image = |photo| RowImage::Path(labels.folder.file(photo));
        let others = [settings.positives.then(|| image(triplet.positive)), negatives.then(|| image(triplet.negative))];
        let name = format!("{}:{}", labels.table.display(), triplet.anchor.row);
        let found = row(name, settings, &made.question, &triplet.anchor.class, image(triplet.anchor), others);
        // Of two classes one photograph: one of the labels is wrong.
        match &found.negative {
            Some(negative) if negative.same_content(&found.anchor).unwrap_or(false) => {
                let (row, twin) = (triplet.anchor.row, triplet.negative.row);
                Err(DataError::Row { file: labels.table.clone(), row, problem: RowProblem::SamePhotograph(twin) }
                    .into())
            }
            _ => Ok(found),
        }
    });
    rows.collect()
}
