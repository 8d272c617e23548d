//! Triplets as training samples: from a file of stage-2 rows, or made from a folder of labelled photographs.
//!
//! A triplet (arXiv 2602.07605, section 4.3): an anchor, a positive of the same class, a negative of the most similar other.
//! Ids are built for each of the three images, which may differ in size.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use fieldmark::{
    data::{DataError, PromptTemplate, RowProblem, SinglePhotoPolicy, TapoRow, build_triplets, read_tapo_rows},
    processor::{DecodeOptions, Message, Photo, ProcessOptions, Processor, ProcessorError, Sequence},
    recipe::Recipe,
    stream::{RandomStream, StreamKey},
    train::{BlackPatches, NegativeImage, TrainError, TripletPrompt, TripletSource},
};

use super::{
    held_out::{HeldOut, take_out},
    labels::Labels,
};

/// All triplets of a run.
#[derive(Debug)]
pub struct Triplets {
    processor: Processor,
    decode: DecodeOptions,
    max_tokens: usize,
    negatives: Negatives,
    rows: Vec<TripletRow>,
    by_name: HashMap<String, usize>,
}

/// What the negative of a sample is.
#[derive(Debug)]
enum Negatives {
    /// Not looked at by the loss.
    None,
    /// A photograph of its own.
    Photographs,
    /// The anchor with black patches, drawn under the run's key.
    Patches(BlackPatches, StreamKey),
}

/// Which images beside the anchor a row must have.
#[derive(Debug, Clone, Copy)]
struct Needs {
    positives: bool,
    negatives: bool,
}

impl Needs {
    fn of(recipe: &Recipe, negatives: &Negatives) -> Self {
        let negatives = matches!(negatives, Negatives::Photographs);
        Self { positives: recipe.tapo.positive_rollouts > 0, negatives }
    }
}

impl Negatives {
    fn of(recipe: &Recipe) -> Self {
        match recipe.tapo.negative {
            _ if !recipe.tapo.loss.needs_negative() => Self::None,
            NegativeImage::Triplet => Self::Photographs,
            NegativeImage::Patches => Self::Patches(recipe.tapo.patches, StreamKey::new(recipe.seed)),
        }
    }
}

/// One triplet with its files.
#[derive(Debug)]
pub struct TripletRow {
    name: String,
    /// The user's turn, `<image>` in it.
    pub prompt: String,
    system: Option<String>,
    truth: String,
    /// File of the anchor.
    pub anchor: PathBuf,
    /// File of the positive, where responses are sampled from it.
    pub positive: Option<PathBuf>,
    /// File of the negative, where it is a photograph of its own.
    pub negative: Option<PathBuf>,
}

impl Triplets {
    /// Reads or makes the triplets that the recipe asks for; every image must be there. `context` is the model's.
    ///
    /// # Errors
    /// The first bad row or missing image; a recipe that names neither a file nor a folder.
    pub fn open(recipe: &Recipe, processor: Processor, context: usize) -> anyhow::Result<Self> {
        let data = &recipe.data;
        let negatives = Negatives::of(recipe);
        let needs = Needs::of(recipe, &negatives);
        let rows = match (&data.tapo.file, &data.labels) {
            (Some(file), _) => from_file(file, recipe, needs)?,
            (None, Some(folder)) => from_labels(folder, recipe, needs)?,
            (None, None) => anyhow::bail!(
                "no triplets; name a file with --set data.tapo.file=FILE or photographs with --set data.labels=DIR"
            ),
        };
        // A prompt needs room for one new token.
        let max_tokens = data.tapo.max_tokens.min(context.saturating_sub(1));
        let by_name = by_name(&rows);
        Ok(Self { processor, decode: data.decode(), max_tokens, negatives, rows, by_name })
    }

    /// The recipe's validation set: a file of its own, or rows that are taken from these.
    ///
    /// # Errors
    /// As [`Self::open`]; a recipe that asks for both, or for all rows.
    pub fn validation(&mut self, recipe: &Recipe) -> anyhow::Result<Option<Self>> {
        let (data, all) = (&recipe.data.tapo, format!("the {} triplets there are", self.rows.len()));
        let from = HeldOut::of("data.tapo", data.validation.as_deref(), data.validation_rows, self.rows.len(), &all)?;
        let rows = match from {
            HeldOut::Nowhere => return Ok(None),
            HeldOut::File(file) => from_file(file, recipe, Needs { positives: false, negatives: false })?,
            HeldOut::Rows(count) => {
                let mut stream = StreamKey::new(recipe.seed).word("tapo").word("validation").stream();
                let held = take_out(&mut self.rows, count, &mut stream);
                self.by_name = by_name(&self.rows);
                held
            }
        };
        let alone = |row| TripletRow { positive: None, negative: None, ..row };
        let rows: Vec<TripletRow> = rows.into_iter().map(alone).collect();
        let (processor, negatives, by_name) = (self.processor.clone(), Negatives::None, by_name(&rows));
        Ok(Some(Self { processor, negatives, rows, by_name, ..*self }))
    }

    /// The row that a prompt was made from.
    pub fn row_of(&self, prompt: &TripletPrompt) -> Option<&TripletRow> {
        self.by_name.get(&prompt.anchor.name).and_then(|&row| self.rows.get(row))
    }

    fn open_photo(&self, row: &TripletRow, image: &Path) -> Result<Photo, TrainError> {
        Photo::open(image, &self.decode).map_err(|error| in_row(row, &error))
    }

    fn sequence(&self, row: &TripletRow, photo: &Photo) -> Result<Sequence, TrainError> {
        let patched = self.processor.images.process(photo).map_err(|error| in_row(row, &error))?;
        let mut messages: Vec<Message> = row.system.iter().map(Message::system).collect();
        messages.push(Message::user(&row.prompt));
        let options = ProcessOptions::prompt().with_max_tokens(self.max_tokens);
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
        let negative = match &self.negatives {
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
}

fn by_name(rows: &[TripletRow]) -> HashMap<String, usize> {
    rows.iter().enumerate().map(|(i, row)| (row.name.clone(), i)).collect()
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

fn from_file(file: &Path, recipe: &Recipe, needs: Needs) -> Result<Vec<TripletRow>, DataError> {
    let roots = recipe.data.roots(file);
    let made = |tapo: TapoRow| {
        let in_row = |problem| DataError::Row { file: file.into(), row: tapo.row, problem };
        let find = |image: &PathBuf| {
            roots.find(image).ok_or_else(|| in_row(RowProblem::ImageNotFound(image.display().to_string())))
        };
        let other = |image: &Option<PathBuf>, needed: bool, problem: RowProblem| match image {
            _ if !needed => Ok(None),
            Some(image) => find(image).map(Some),
            None => Err(in_row(problem)),
        };
        let positive = other(&tapo.positive, needs.positives, RowProblem::NoPositive)?;
        let negative = other(&tapo.negative, needs.negatives, RowProblem::NoNegative)?;
        let name = format!("{}:{}", file.display(), tapo.row);
        Ok(row(name, recipe.data.tapo.prompt, &tapo.problem, &tapo.answer, find(&tapo.anchor)?, [positive, negative]))
    };
    read_tapo_rows(file)?.into_iter().map(made).collect()
}

fn from_labels(folder: &Path, recipe: &Recipe, needs: Needs) -> anyhow::Result<Vec<TripletRow>> {
    let data = &recipe.data;
    let labels = Labels::open(folder, data, recipe.seed)?;
    let photos = labels.training();
    let similar = labels.similar(&photos, data.decode())?;
    let reuse = data.tapo.reuse_anchor || !needs.positives;
    let single = if reuse { SinglePhotoPolicy::ReuseAnchor } else { SinglePhotoPolicy::Refuse };
    let mut stream = RandomStream::new(recipe.seed, &["triplets"]);
    let triplets = build_triplets(&photos, &similar, single, &mut stream)?;
    let rows = triplets.iter().map(|triplet| {
        let file = |photo| labels.folder.file(photo);
        let positive = needs.positives.then(|| file(triplet.positive));
        let negative = needs.negatives.then(|| file(triplet.negative));
        let name = format!("{}:{}", labels.table.display(), triplet.anchor.row);
        row(name, data.tapo.prompt, &data.question, &triplet.anchor.class, file(triplet.anchor), [positive, negative])
    });
    Ok(rows.collect())
}
