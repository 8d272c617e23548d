//! The conversations of a file as training samples. Images are decoded when a sample is made.
//!
//! Reference: LLaMA-Factory's supervised processor with the `qwen2_vl` template. `<image>` marks the place of an image.
//! An observation has the user's role, and a tool call the assistant's.

use std::path::Path;

use fieldmark_data::{
    DataError, HeldOutClasses, ImageRoots, RowImage, RowProblem, SftExample, TurnRole, read_conversations,
};
use fieldmark_processor::{
    self as processor, Content, DecodeOptions, Message, Processor, ProcessorError, SupervisedSequence, TargetEnd,
};
use fieldmark_stream::RandomStream;
use fieldmark_train::{TrainError, sft::SftSource};

use super::{held_out::take_out, photo};

/// How conversations become samples.
#[derive(Debug, Clone)]
pub struct ConversationSettings {
    /// How photographs are decoded.
    pub decode: DecodeOptions,
    /// The token at which the loss of an answer ends.
    pub end: TargetEnd,
    /// Largest number of tokens in a conversation, images included. A longer one is an error; it is never cut.
    pub max_tokens: usize,
    /// Classes that no row may show or name.
    pub held_out: HeldOutClasses,
    /// Whether rows without an image teach something: whether the decoder is trained.
    pub text_teaches: bool,
}

impl Default for ConversationSettings {
    fn default() -> Self {
        Self {
            decode: DecodeOptions::default(),
            end: TargetEnd::ImEnd,
            max_tokens: 4096,
            held_out: HeldOutClasses::default(),
            text_teaches: true,
        }
    }
}

/// All conversations of a file.
#[derive(Debug)]
pub struct Conversations {
    processor: Processor,
    settings: ConversationSettings,
    rows: Vec<Conversation>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Conversation {
    name: String,
    messages: Vec<Message>,
    /// Which of the messages are learned.
    learned: Vec<bool>,
    images: Vec<RowImage>,
}

impl Conversations {
    /// Reads a file. Every image must exist under `roots`. `processor` decides the image sizes.
    ///
    /// # Errors
    /// Returns an error for the first bad row, for a missing image, or for a row with a held-out class.
    pub fn open(
        file: &Path,
        roots: &ImageRoots,
        processor: Processor,
        settings: ConversationSettings,
    ) -> Result<Self, DataError> {
        let mut rows = Vec::new();
        let (mut put_first, mut text_alone, mut mentions) = (0, 0, Vec::new());
        for mut example in read_conversations(file, None)? {
            let in_row = |problem| DataError::Row { file: file.into(), row: example.row, problem };
            example.images = located(&example.images, roots).map_err(in_row)?;
            settings.held_out.check_conversation(&example).map_err(in_row)?;
            put_first += usize::from(example.image_put_first);
            text_alone += usize::from(example.images.is_empty());
            mentions.extend(settings.held_out.mentioned(&example).map(|class| (example.row, class.to_owned())));
            let name = format!("{}:{}", file.display(), example.row);
            let (messages, learned) = messages(&example).into_iter().unzip();
            rows.push(Conversation { name, messages, learned, images: example.images });
        }
        let mut notes = Vec::new();
        let mut note = |count: usize, text: &str| {
            if count > 0 {
                notes.push(format!("{}: {count} of {} rows have {text}", file.display(), rows.len()));
            }
        };
        note(put_first, "one image and no <image> in the text; the image is put first");
        let learned = if settings.text_teaches {
            "no image; the model learns from the text alone"
        } else {
            "no image and teach nothing, because the decoder is not trained"
        };
        note(text_alone, learned);
        if let Some((row, class)) = mentions.first() {
            let count = mentions.len();
            let text = format!(
                "a held-out class outside their answer, the first in row {row} ({class}); the model learns the name"
            );
            note(count, &text);
        }
        Ok(Self { processor, settings, rows, notes })
    }

    /// What is worth saying once about the rows, such as that an image without a place in the text is put first.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The images of all rows, in their order.
    pub fn images(&self) -> impl Iterator<Item = &RowImage> {
        self.rows.iter().flat_map(|row| &row.images)
    }

    /// The files of the photographs of all rows, in their order.
    pub fn photographs(&self) -> impl Iterator<Item = &Path> {
        self.images().filter_map(RowImage::path)
    }

    /// Removes `rows` rows, drawn with `stream`, and returns them as a set. The others keep their order.
    pub fn hold_out(&mut self, rows: usize, stream: &mut RandomStream) -> Self {
        let rows = take_out(&mut self.rows, rows, stream);
        Self { processor: self.processor.clone(), settings: self.settings.clone(), rows, notes: Vec::new() }
    }
}

fn located(images: &[RowImage], roots: &ImageRoots) -> Result<Vec<RowImage>, RowProblem> {
    let missing = |image: &RowImage| roots.not_found(image.path().unwrap_or(Path::new("")));
    images.iter().map(|image| roots.locate(image).ok_or_else(|| missing(image))).collect()
}

/// The messages of a conversation, each with whether it is learned.
fn messages(example: &SftExample) -> Vec<(Message, bool)> {
    let turns = example.turns.iter().map(|turn| {
        let role = match turn.role {
            TurnRole::User | TurnRole::Observation => processor::Role::User,
            TurnRole::Assistant | TurnRole::Function => processor::Role::Assistant,
        };
        (Message { role, content: Content::from_tagged(&turn.content) }, turn.learned)
    });
    example.system.iter().map(|text| (Message::system(text), false)).chain(turns).collect()
}

impl SftSource for Conversations {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn sample(&self, row: usize, _epoch: usize) -> Result<SupervisedSequence, TrainError> {
        let row = &self.rows[row];
        let photos = row.images.iter().map(|image| photo::open(image, &self.settings.decode));
        let images = self.processor.patch(&row.name, photos, Some(self.settings.max_tokens));
        let images = images.map_err(|error| match error {
            ProcessorError::TooLong { .. } => error.into(),
            other => TrainError::Sample { row: row.name.clone(), reason: other.to_string() },
        })?;
        Ok(self.processor.encode_learned(
            &row.name,
            &row.messages,
            |message| row.learned[message],
            images,
            self.settings.end,
            Some(self.settings.max_tokens),
        )?)
    }
}
