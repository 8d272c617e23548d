//! Conversations of a ShareGPT file as training samples; images are decoded when a sample is made.
//!
//! Reference: LLaMA-Factory's supervised processor with the `qwen2_vl` template: `<image>` marks the image's place, an
//! observation stands in the user's role and a tool call in the assistant's.

use std::path::{Path, PathBuf};

use fieldmark::{
    data::{DataError, Role, RowProblem, SftExample, read_sharegpt},
    processor::{self, Content, DecodeOptions, Message, Photo, Processor, SupervisedSequence, TargetEnd},
    recipe::DataSection,
    stream::RandomStream,
    train::{SftSource, TrainError},
};

use super::held_out::take_out;

/// All conversations of a file.
#[derive(Debug)]
pub struct Conversations {
    processor: Processor,
    decode: DecodeOptions,
    end: TargetEnd,
    max_tokens: usize,
    rows: Vec<Conversation>,
}

#[derive(Debug)]
struct Conversation {
    name: String,
    messages: Vec<Message>,
    images: Vec<PathBuf>,
}

impl Conversations {
    /// Reads the file; every image must be there. `processor` has the sizes wanted, `context` is the model's.
    ///
    /// # Errors
    /// The first bad row, or the first image that is missing.
    pub fn open(file: &Path, data: &DataSection, processor: Processor, context: usize) -> Result<Self, DataError> {
        let roots = data.roots(file);
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
        let end = if data.sft.newline_in_loss { TargetEnd::Newline } else { TargetEnd::ImEnd };
        Ok(Self { processor, decode: data.decode(), end, max_tokens: data.sft.max_tokens.min(context), rows })
    }

    /// Takes `rows` rows away, drawn by `stream`; the others keep their order.
    pub fn hold_out(&mut self, rows: usize, stream: &mut RandomStream) -> Self {
        let rows = take_out(&mut self.rows, rows, stream);
        Self { processor: self.processor.clone(), rows, ..*self }
    }
}

fn messages(example: &SftExample) -> Vec<Message> {
    let turns = example.turns.iter().map(|turn| Message {
        role: match turn.role {
            Role::User | Role::Observation => processor::Role::User,
            Role::Assistant | Role::Function => processor::Role::Assistant,
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
            let photo = Photo::open(path, &self.decode)?;
            self.processor.images.process(&photo)
        };
        let images = row.images.iter().map(image).collect::<Result<Vec<_>, _>>();
        let images = images.map_err(|error| TrainError::Sample { row: row.name.clone(), reason: error.to_string() })?;
        Ok(self.processor.encode_supervised(&row.name, &row.messages, images, self.end, Some(self.max_tokens))?)
    }
}
