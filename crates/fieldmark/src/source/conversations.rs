//! The conversations of a ShareGPT file as training samples. Images are decoded when a sample is made.
//!
//! Reference: LLaMA-Factory's supervised processor with the `qwen2_vl` template. `<image>` marks the place of an image.
//! An observation has the user's role, and a tool call the assistant's.

use std::path::{Path, PathBuf};

use fieldmark_data::{DataError, ImageRoots, RowProblem, SftExample, TurnRole, read_sharegpt};
use fieldmark_processor::{
    self as processor, Content, DecodeOptions, Message, Photo, Processor, SupervisedSequence, TargetEnd,
};
use fieldmark_stream::RandomStream;
use fieldmark_train::{TrainError, sft::SftSource};

use super::held_out::take_out;

/// How conversations become samples.
#[derive(Debug, Clone)]
pub struct ConversationSettings {
    /// How photographs are decoded.
    pub decode: DecodeOptions,
    /// The token at which the loss of an answer ends.
    pub end: TargetEnd,
    /// Largest number of tokens in a conversation, images included. A longer one is an error; it is never cut.
    pub max_tokens: usize,
}

impl Default for ConversationSettings {
    fn default() -> Self {
        Self { decode: DecodeOptions::default(), end: TargetEnd::ImEnd, max_tokens: 4096 }
    }
}

/// All conversations of a file.
#[derive(Debug)]
pub struct Conversations {
    processor: Processor,
    settings: ConversationSettings,
    rows: Vec<Conversation>,
}

#[derive(Debug)]
struct Conversation {
    name: String,
    messages: Vec<Message>,
    images: Vec<PathBuf>,
}

impl Conversations {
    /// Reads a file. Every image must exist under `roots`. `processor` decides the image sizes.
    ///
    /// # Errors
    /// Returns an error for the first bad row or missing image.
    pub fn open(
        file: &Path,
        roots: &ImageRoots,
        processor: Processor,
        settings: ConversationSettings,
    ) -> Result<Self, DataError> {
        let mut rows = Vec::new();
        for example in read_sharegpt(file, None)? {
            let find = |image: &PathBuf| {
                roots.find(image).ok_or_else(|| DataError::Row {
                    file: file.into(),
                    row: example.row,
                    problem: RowProblem::ImageNotFound(image.display().to_string()),
                })
            };
            let images = example.images.iter().map(find).collect::<Result<_, _>>()?;
            let name = format!("{}:{}", file.display(), example.row);
            rows.push(Conversation { name, messages: messages(&example), images });
        }
        Ok(Self { processor, settings, rows })
    }

    /// The photographs of all rows, in their order.
    pub fn photographs(&self) -> impl Iterator<Item = &Path> {
        self.rows.iter().flat_map(|row| row.images.iter().map(PathBuf::as_path))
    }

    /// Removes `rows` rows, drawn with `stream`, and returns them as a set. The others keep their order.
    pub fn hold_out(&mut self, rows: usize, stream: &mut RandomStream) -> Self {
        let rows = take_out(&mut self.rows, rows, stream);
        Self { processor: self.processor.clone(), settings: self.settings.clone(), rows }
    }
}

fn messages(example: &SftExample) -> Vec<Message> {
    let turns = example.turns.iter().map(|turn| Message {
        role: match turn.role {
            TurnRole::User | TurnRole::Observation => processor::Role::User,
            TurnRole::Assistant | TurnRole::Function => processor::Role::Assistant,
        },
        content: Content::from_tagged(&turn.content),
    });
    example.system.iter().map(Message::system).chain(turns).collect()
}

impl SftSource for Conversations {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn sample(&self, row: usize, _epoch: usize) -> Result<SupervisedSequence, TrainError> {
        let row = &self.rows[row];
        let image = |path: &PathBuf| {
            let photo = Photo::open(path, &self.settings.decode)?;
            self.processor.images.process(&photo)
        };
        let images = row.images.iter().map(image).collect::<Result<Vec<_>, _>>();
        let images = images.map_err(|error| TrainError::Sample { row: row.name.clone(), reason: error.to_string() })?;
        Ok(self.processor.encode_supervised(
            &row.name,
            &row.messages,
            images,
            self.settings.end,
            Some(self.settings.max_tokens),
        )?)
    }
}
