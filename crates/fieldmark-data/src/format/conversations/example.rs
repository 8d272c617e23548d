//! A checked conversation, as every form of row becomes one.

use crate::row_image::RowImage;

/// The speaker of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnRole {
    /// The user; LLaMA-Factory's `user_tag`.
    User,
    /// The model, which learns this text; `assistant_tag`.
    Assistant,
    /// A tool's answer, in the user's place; `observation_tag`.
    Observation,
    /// A tool call, in the assistant's place; `function_tag`.
    Function,
}

impl TurnRole {
    /// Returns true if the model speaks.
    pub fn is_response(self) -> bool {
        matches!(self, Self::Assistant | Self::Function)
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The speaker.
    pub role: TurnRole,
    /// The text, unchanged; `<image>` marks the place of an image.
    pub content: String,
    /// Whether the loss covers the turn: a response, unless the row leaves it out.
    pub learned: bool,
}

/// One checked conversation: user turns and responses alternate, no response is empty, at least one is learned, and
/// there is one `<image>` for each image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SftExample {
    /// The row in its file, from 1.
    pub row: usize,
    /// The system text, or `None` for the chat template's.
    pub system: Option<String>,
    /// The turns, an even number of them.
    pub turns: Vec<Turn>,
    /// The images, in the order of their placeholders; none in a row of text. [`crate::ImageRoots`] finds the files.
    pub images: Vec<RowImage>,
    /// True if the row has one image and no `<image>`, so that the image was put first.
    pub image_put_first: bool,
}

impl SftExample {
    /// The text of the last turn.
    pub fn response(&self) -> &str {
        self.turns.last().map_or("", |turn| turn.content.as_str())
    }

    /// The answer in a response: the text of the last `<answer>`, or else the whole response.
    pub fn answer_in(response: &str) -> &str {
        let block = response.rfind("<answer>").map(|start| &response[start + "<answer>".len()..]);
        block.and_then(|block| block.split("</answer>").next()).unwrap_or(response).trim()
    }

    /// The texts that are learned.
    pub fn learned(&self) -> impl Iterator<Item = &str> {
        self.turns.iter().filter(|turn| turn.learned).map(|turn| turn.content.as_str())
    }
}
