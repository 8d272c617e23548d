//! Helpers for runs that are stopped and resumed: rows that are the same whenever they are made, rows with NaN pixels,
//! and saving and loading of a trainer's state.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fieldmark::{
    RunError,
    folder::Checkpoints,
    model::{LoadOptions, Qwen25Vl, Qwen25VlConfig, SaveOptions},
    processor::{Sequence, SupervisedSequence},
    stream::StreamKey,
    train::{
        TrainError,
        params::stable_param_ids,
        sft::SftSource,
        tapo::{TripletSource, rollout::TripletPrompt},
        trainer::{Mark, Updater},
    },
};

use crate::{
    prompts::{MODELS, Part, load, sequence},
    training::VOCABULARY,
};

/// The device of these runs.
pub fn device() -> Device {
    Device::flex().autodiff()
}

/// The model that these runs start from.
pub fn start() -> Qwen25Vl {
    stable_param_ids(load(MODELS[0], &device()))
}

/// Makes the prompt of a row: its own text and image.
fn prompt(config: &Qwen25VlConfig, row: u64, image: u64) -> Sequence {
    let text = |seed: u64, count: usize| {
        let mut stream = StreamKey::new(seed).word("text").stream();
        Part::Text((0..count).map(|_| 8 + stream.below(312) as u32).collect())
    };
    let longer = 4 + 2 * (row as usize % 3);
    let mut made =
        sequence(&[text(row, 3), Part::Image { h: 4, w: longer, seed: 10 * row + image }, text(row + 100, 2)], config);
    made.name = format!("row {row}");
    made
}

fn poison(sequence: &mut Sequence) {
    let image = &mut sequence.images[0];
    image.pixel_values = image.pixel_values.iter().map(|_| f32::NAN).collect();
}

/// Rows, some of them with NaN pixels.
pub struct Rows {
    config: Qwen25VlConfig,
    rows: usize,
    poisoned: Vec<usize>,
}

impl Rows {
    /// Creates rows without NaN.
    pub fn new(rows: usize) -> Self {
        Self { config: load(MODELS[0], &Device::flex()).config().clone(), rows, poisoned: Vec::new() }
    }

    /// Creates rows, with NaN pixels in the rows at the indices `poisoned`.
    pub fn poisoned(rows: usize, poisoned: &[usize]) -> Self {
        Self { poisoned: poisoned.to_vec(), ..Self::new(rows) }
    }
}

impl SftSource for Rows {
    fn len(&self) -> usize {
        self.rows
    }

    fn sample(&self, row: usize, epoch: usize) -> Result<SupervisedSequence, TrainError> {
        let mut prompt = prompt(&self.config, row as u64, epoch as u64);
        if self.poisoned.contains(&row) {
            poison(&mut prompt);
        }
        let answer: Vec<u32> = (0..3 + row as u32).map(|i| 20 + 7 * i + row as u32).collect();
        let mut target_mask = vec![false; prompt.ids.len()];
        target_mask.resize(prompt.ids.len() + answer.len(), true);
        Ok(SupervisedSequence { sequence: prompt.with_response(&answer), target_mask })
    }
}

impl TripletSource for Rows {
    fn len(&self) -> usize {
        self.rows
    }

    fn prompt(&self, row: usize, epoch: usize) -> Result<TripletPrompt, TrainError> {
        let make = |image: u64| prompt(&self.config, row as u64, 3 * epoch as u64 + image);
        let mut negative = make(2);
        if self.poisoned.contains(&row) {
            poison(&mut negative);
        }
        let truth = (8..VOCABULARY).step_by(3).map(|id| format!("t{id}")).collect::<Vec<_>>().join(" ");
        Ok(TripletPrompt {
            anchor: make(0),
            positive: Some(make(1)),
            negative: Some(negative),
            truth,
            aliases: Vec::new(),
        })
    }
}

/// Saves a checkpoint of a trainer and its model. Returns the model and the state read back, and the file of the
/// moments.
pub fn through_a_checkpoint<S: serde::Serialize + serde::de::DeserializeOwned>(
    folder: &Path,
    model: &Qwen25Vl,
    updater: &Updater,
    state: &S,
) -> (Qwen25Vl, S, PathBuf) {
    let checkpoints = Checkpoints::new(folder);
    let mark = Mark { step: 1, updates: 0 };
    let saved = checkpoints.save(mark, updater, state, |folder| -> Result<(), RunError> {
        model.save_pretrained(folder, SaveOptions::default()).unwrap();
        Ok(())
    });
    let saved = saved.unwrap();
    let model = stable_param_ids(Qwen25Vl::from_pretrained(&saved, LoadOptions::default(), &device()).unwrap());
    let state = Checkpoints::state(&saved).unwrap();
    (model, state, Checkpoints::moments(&saved))
}

/// Returns the order of the rows in the first epoch.
pub fn order_of(rows: usize, words: [&str; 2], seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    StreamKey::new(seed).word(words[0]).word(words[1]).number(0).stream().shuffle(&mut order);
    order
}
