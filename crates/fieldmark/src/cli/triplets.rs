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
    generate::RandomStream,
    processor::{DecodeOptions, Message, Photo, ProcessOptions, Processor, Sequence},
    recipe::Recipe,
    train::{TrainError, TripletPrompt, TripletSource},
};

use super::labels::Labels;

/// All triplets of a run.
#[derive(Debug)]
pub struct Triplets {
    processor: Processor,
    decode: DecodeOptions,
    max_tokens: usize,
    rows: Vec<TripletRow>,
    by_name: HashMap<String, usize>,
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
    /// File of the positive.
    pub positive: PathBuf,
    /// File of the negative.
    pub negative: PathBuf,
}

impl Triplets {
    /// Reads or makes the triplets that the recipe asks for; every image must be there. `context` is the model's.
    ///
    /// # Errors
    /// The first bad row or missing image; a recipe that names neither a file nor a folder.
    pub fn open(recipe: &Recipe, processor: Processor, context: usize) -> anyhow::Result<Self> {
        let data = &recipe.data;
        let rows = match (&data.tapo.file, &data.labels) {
            (Some(file), _) => from_file(file, recipe)?,
            (None, Some(folder)) => from_labels(folder, recipe)?,
            (None, None) => anyhow::bail!(
                "no triplets; name a file with --set data.tapo.file=FILE or photographs with --set data.labels=DIR"
            ),
        };
        let by_name = rows.iter().enumerate().map(|(i, row)| (row.name.clone(), i)).collect();
        // A prompt needs room for one new token.
        let max_tokens = data.tapo.max_tokens.min(context.saturating_sub(1));
        Ok(Self { processor, decode: data.decode(), max_tokens, rows, by_name })
    }

    /// The row that a prompt was made from.
    pub fn row_of(&self, prompt: &TripletPrompt) -> Option<&TripletRow> {
        self.by_name.get(&prompt.anchor.name).and_then(|&row| self.rows.get(row))
    }

    fn sequence(&self, row: &TripletRow, image: &Path) -> Result<Sequence, TrainError> {
        let patched = Photo::open(image, &self.decode).and_then(|photo| self.processor.images.process(&photo));
        let patched =
            patched.map_err(|error| TrainError::Sample { row: row.name.clone(), reason: error.to_string() })?;
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

    fn prompt(&self, row: usize, _epoch: usize) -> Result<TripletPrompt, TrainError> {
        let row = &self.rows[row];
        Ok(TripletPrompt {
            anchor: self.sequence(row, &row.anchor)?,
            positive: self.sequence(row, &row.positive)?,
            negative: self.sequence(row, &row.negative)?,
            truth: row.truth.clone(),
        })
    }
}

fn row(name: String, template: PromptTemplate, question: &str, truth: &str, images: [PathBuf; 3]) -> TripletRow {
    let prompt = template.render(question, &[]);
    let [anchor, positive, negative] = images;
    TripletRow { name, prompt: prompt.user, system: prompt.system, truth: truth.into(), anchor, positive, negative }
}

fn from_file(file: &Path, recipe: &Recipe) -> Result<Vec<TripletRow>, DataError> {
    let roots = recipe.data.roots(file);
    let made = |tapo: TapoRow| {
        let find = |image: &PathBuf| {
            roots.find(image).ok_or_else(|| DataError::Row {
                file: file.into(),
                row: tapo.row,
                problem: RowProblem::ImageNotFound(image.display().to_string()),
            })
        };
        let images = [find(&tapo.anchor)?, find(&tapo.positive)?, find(&tapo.negative)?];
        let name = format!("{}:{}", file.display(), tapo.row);
        Ok(row(name, recipe.data.tapo.prompt, &tapo.problem, &tapo.answer, images))
    };
    read_tapo_rows(file)?.into_iter().map(made).collect()
}

fn from_labels(folder: &Path, recipe: &Recipe) -> anyhow::Result<Vec<TripletRow>> {
    let data = &recipe.data;
    let labels = Labels::open(folder, data, recipe.seed)?;
    let photos = labels.training();
    let similar = labels.similar(&photos, data.decode())?;
    let single = if data.tapo.reuse_anchor { SinglePhotoPolicy::ReuseAnchor } else { SinglePhotoPolicy::Refuse };
    let mut stream = RandomStream::new(recipe.seed, &["triplets"]);
    let triplets = build_triplets(&photos, &similar, single, &mut stream)?;
    let rows = triplets.iter().map(|triplet| {
        let images = [triplet.anchor, triplet.positive, triplet.negative].map(|photo| labels.folder.file(photo));
        let name = format!("{}:{}", labels.table.display(), triplet.anchor.row);
        row(name, data.tapo.prompt, &data.question, &triplet.anchor.class, images)
    });
    Ok(rows.collect())
}
