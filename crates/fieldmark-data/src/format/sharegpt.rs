//! Conversations for SFT, as LLaMA-Factory's `SharegptDatasetConverter` reads them. One row is one conversation:
//!
//! ```json
//! {"messages": [{"role": "user", "content": "<image>What is this?"}, {"role": "assistant", "content":
//! "<think>It is long.</think><answer>Conference</answer>"}], "images": ["images/train/Conference/Conference_001.jpg"]}
//! ```
//!
//! | Field | Needed? | Meaning |
//! | --- | --- | --- |
//! | `messages` | yes | the turns in order; user and assistant alternate, and the assistant is last |
//! | `role` | yes | `user` or `assistant`; `system` for a first message with the system text |
//! | `content` | yes | the text; `<image>` marks the place of an image. The model learns the assistant's texts |
//! | `images` | yes | the path of each image, in the order of the `<image>` marks; at least one |
//! | `system` | no | the system text, if no message has it |
//!
//! The roles `observation` (a tool's answer) and `function_call` (a tool call) may take the place of user and
//! assistant. LLaMA-Factory's default form has other names: `conversations` for `messages`, `from` and `value` for
//! `role` and `content`, `human` and `gpt` for `user` and `assistant`. The first row decides which form a file has.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::columns::{filled, images, kind_of, object, string};
use super::reader::{ReadLimits, read_records};
use crate::error::{DataError, RowProblem};
use crate::prompt::IMAGE_PLACEHOLDER;

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
    /// Returns true if the model speaks, so that the loss covers the turn.
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
}

/// One checked conversation: user turns and responses alternate, no response is empty, and there is at least one image
/// and one `<image>` for each image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SftExample {
    /// The row in its file, from 1.
    pub row: usize,
    /// The system text, or `None` for the chat template's.
    pub system: Option<String>,
    /// The turns, an even number of them.
    pub turns: Vec<Turn>,
    /// The image paths in the row, in the order of their placeholders. [`crate::ImageRoots`] finds the files.
    pub images: Vec<PathBuf>,
}

impl SftExample {
    /// The text of the last turn.
    pub fn response(&self) -> &str {
        self.turns.last().map_or("", |turn| turn.content.as_str())
    }
}

/// The names of columns and tags, as in an entry of LLaMA-Factory's `dataset_info.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareGptFormat {
    /// The column with the list of messages.
    pub messages: String,
    /// The column with the images.
    pub images: String,
    /// The column with a system text outside the messages.
    pub system: String,
    /// The field of a message that names the speaker.
    pub role_tag: String,
    /// The field of a message that contains the text.
    pub content_tag: String,
    /// The user's name.
    pub user_tag: String,
    /// The assistant's name.
    pub assistant_tag: String,
    /// A tool answer's name.
    pub observation_tag: String,
    /// A tool call's name.
    pub function_tag: String,
    /// The name of a first message with the system text.
    pub system_tag: String,
}

/// A message in the row.
type Message<'a> = &'a Map<String, Value>;

impl Default for ShareGptFormat {
    /// LLaMA-Factory's default form: `conversations`, `from` and `value`, `human` and `gpt`.
    fn default() -> Self {
        Self::with("conversations", ["from", "value"], ["human", "gpt"])
    }
}

impl ShareGptFormat {
    /// The form of the official stage-1 file: `messages`, `role` and `content`, `user` and `assistant`.
    pub fn messages() -> Self {
        Self::with("messages", ["role", "content"], ["user", "assistant"])
    }

    fn with(messages: &str, tags: [&str; 2], speakers: [&str; 2]) -> Self {
        Self {
            messages: messages.into(),
            images: "images".into(),
            system: "system".into(),
            role_tag: tags[0].into(),
            content_tag: tags[1].into(),
            user_tag: speakers[0].into(),
            assistant_tag: speakers[1].into(),
            observation_tag: "observation".into(),
            function_tag: "function_call".into(),
            system_tag: "system".into(),
        }
    }

    /// Finds the form of a row by its column of messages; `None` if the row has neither column.
    pub fn detect(row: &Value) -> Option<Self> {
        [Self::messages(), Self::default()].into_iter().find(|format| row.get(&format.messages).is_some())
    }

    /// Reads one row.
    ///
    /// # Errors
    /// Returns the first problem of the row. A conversation that does not alternate is an error, although LLaMA-Factory
    /// skips it, because a data set must not shrink silently.
    pub fn parse(&self, row: usize, value: &Value) -> Result<SftExample, RowProblem> {
        let columns = object(value)?;
        let list = match columns.get(&self.messages) {
            None => return Err(RowProblem::MissingField(self.messages.clone())),
            Some(Value::Array(list)) => list,
            Some(other) => {
                return Err(RowProblem::WrongType {
                    field: self.messages.clone(),
                    expected: "a list of messages",
                    found: kind_of(other),
                });
            }
        };
        let messages = list.iter().map(object).collect::<Result<Vec<_>, _>>()?;
        let (system, messages) = self.take_system(columns, &messages)?;
        if messages.is_empty() {
            return Err(RowProblem::Empty(self.messages.clone()));
        }
        let turns = messages
            .iter()
            .enumerate()
            .map(|(index, message)| self.turn(index, message))
            .collect::<Result<Vec<_>, _>>()?;
        if !turns.len().is_multiple_of(2) {
            return Err(RowProblem::Unanswered(turns.len()));
        }
        let images = images(columns, &self.images)?;
        let placeholders = turns.iter().map(|turn| turn.content.matches(IMAGE_PLACEHOLDER).count()).sum();
        if placeholders == 0 && images.is_empty() {
            return Err(RowProblem::NoImage(self.images.clone()));
        }
        if placeholders != images.len() {
            return Err(RowProblem::PlaceholderCount {
                placeholders,
                images: images.len(),
                column: self.images.clone(),
            });
        }
        Ok(SftExample { row, system, turns, images })
    }

    /// Takes the system text from a first system message, otherwise from the system column if it has text.
    fn take_system<'a>(
        &self,
        columns: &Map<String, Value>,
        messages: &'a [Message<'a>],
    ) -> Result<(Option<String>, &'a [Message<'a>]), RowProblem> {
        if let Some((first, rest)) = messages.split_first()
            && string(first, &self.role_tag)? == self.system_tag
        {
            return Ok((Some(string(first, &self.content_tag)?.to_owned()), rest));
        }
        let system = match columns.get(&self.system) {
            None | Some(Value::Null) => None,
            Some(_) => Some(string(columns, &self.system)?).filter(|text| !text.is_empty()),
        };
        Ok((system.map(str::to_owned), messages))
    }

    fn turn(&self, index: usize, message: &Map<String, Value>) -> Result<Turn, RowProblem> {
        let name = string(message, &self.role_tag)?;
        let allowed = if index.is_multiple_of(2) {
            [(&self.user_tag, TurnRole::User), (&self.observation_tag, TurnRole::Observation)]
        } else {
            [(&self.assistant_tag, TurnRole::Assistant), (&self.function_tag, TurnRole::Function)]
        };
        let Some((_, role)) = allowed.iter().find(|(tag, _)| *tag == name) else {
            return Err(RowProblem::UnknownRole {
                message: index + 1,
                role: name.into(),
                expected: format!("{:?} or {:?}", allowed[0].0, allowed[1].0),
            });
        };
        let content =
            if role.is_response() { filled(message, &self.content_tag)? } else { string(message, &self.content_tag)? };
        Ok(Turn { role: *role, content: content.to_owned() })
    }
}

/// Reads a file of conversations. Without `format`, the first row decides the form.
///
/// # Errors
/// Returns the first bad row, with file and row; the errors of [`read_records`]; or an error if the file is empty.
pub fn read_sharegpt(path: &Path, format: Option<&ShareGptFormat>) -> Result<Vec<SftExample>, DataError> {
    let records = read_records(path, ReadLimits::default())?;
    let mut examples = Vec::with_capacity(records.rows.len());
    let mut found = format.cloned();
    for record in records.rows {
        let record = record?;
        let format = match &mut found {
            Some(format) => format,
            none => none.insert(ShareGptFormat::detect(&record.value).unwrap_or_default()),
        };
        let example =
            format.parse(record.row, &record.value).map_err(|problem| DataError::row(path, record.row, problem))?;
        examples.push(example);
    }
    if examples.is_empty() {
        return Err(DataError::file(path, "no rows; give a file with conversations"));
    }
    Ok(examples)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn official(messages: Value, images: Value) -> Result<SftExample, RowProblem> {
        ShareGptFormat::messages().parse(4, &json!({"messages": messages, "images": images}))
    }

    fn question(text: &str) -> Value {
        json!([{"content": text, "role": "user"}, {"role": "assistant", "content": "Lime"}])
    }

    #[test]
    fn both_forms_give_the_same_example() {
        let messages = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "<image>Which?"},
            {"role": "assistant", "content": " Lime "},
        ]);
        let ours = official(messages, json!(["a.jpg"])).unwrap();
        let value = json!({
            "conversations": [{"from": "human", "value": "<image>Which?"}, {"from": "gpt", "value": " Lime "}],
            "system": "Be brief.",
            "images": {"bytes": null, "path": "a.jpg"},
        });
        let format = ShareGptFormat::detect(&value).unwrap();
        assert_eq!(format, ShareGptFormat::default());
        assert_eq!(format.parse(4, &value).unwrap(), ours);
        assert_eq!(ours.system.as_deref(), Some("Be brief."));
        assert_eq!(ours.images, [PathBuf::from("a.jpg")]);
        assert_eq!(ours.response(), " Lime ");
        let one = official(question("<image>?"), json!("a.jpg")).unwrap();
        assert_eq!((one.system, one.images), (None, ours.images));
    }

    #[test]
    fn tools_take_the_places_of_user_and_assistant() {
        let value = json!({"images": ["a.jpg"], "conversations": [
            {"from": "human", "value": "<image>Which?"},
            {"from": "function_call", "value": "zoom()"},
            {"from": "observation", "value": ""},
            {"from": "gpt", "value": "Lime"},
        ]});
        let example = ShareGptFormat::default().parse(1, &value).unwrap();
        let responses: Vec<bool> = example.turns.iter().map(|t| t.role.is_response()).collect();
        assert_eq!(responses, [false, true, false, true]);
    }

    #[test]
    fn every_bad_row_says_what_is_wrong() {
        let mismatch =
            |placeholders, images| RowProblem::PlaceholderCount { placeholders, images, column: "images".into() };
        let cases = [
            (official(question("Which?"), json!([])), RowProblem::NoImage("images".into())),
            (official(question("<image>?"), json!(["a", "b"])), mismatch(1, 2)),
            (official(question("<image>?"), Value::Null), mismatch(1, 0)),
            (official(question("<image>?"), json!([""])), RowProblem::Empty("images".into())),
            (
                official(question("<image>?"), json!([{"bytes": "x", "path": null}])),
                RowProblem::EmbeddedImage("images".into()),
            ),
            (
                official(
                    json!([{"role": "user", "content": "<image>"}, {"role": "assistant", "content": " \n"}]),
                    json!(["a"]),
                ),
                RowProblem::Empty("content".into()),
            ),
            (official(json!([{"role": "user", "content": "<image>"}]), json!(["a"])), RowProblem::Unanswered(1)),
            (official(json!([]), json!(["a"])), RowProblem::Empty("messages".into())),
            (
                official(json!([{"role": "assistant", "content": "<image>"}]), json!(["a"])),
                RowProblem::UnknownRole {
                    message: 1,
                    role: "assistant".into(),
                    expected: "\"user\" or \"observation\"".into(),
                },
            ),
            (
                official(
                    json!([{"role": "user", "content": "<image>"}, {"role": "assistant", "content": 3}]),
                    json!(["a"]),
                ),
                RowProblem::WrongType { field: "content".into(), expected: "a string", found: "a number" },
            ),
            (official(json!(["hello"]), json!(["a"])), RowProblem::NotAnObject("string")),
        ];
        for (found, expected) in cases {
            assert_eq!(found.unwrap_err(), expected);
        }
    }
}
