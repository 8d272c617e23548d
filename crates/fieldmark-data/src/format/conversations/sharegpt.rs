//! Conversations as lists of messages. Reference: LLaMA-Factory's `SharegptDatasetConverter`.
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
//! | `content` | yes | the text, or a list of parts; `<image>` marks the place of an image. The model learns the assistant's texts |
//! | `weight` | no | 0 for an assistant's text that the model does not learn (OpenAI) |
//! | `images`, or `image` | no | each image, in the order of the `<image>` marks |
//! | `system` | no | the system text, if no message has it |
//!
//! The roles `observation` (a tool's answer) and `function_call` (a tool call) may take the place of user and
//! assistant. ShareGPT's files, and LLaVA's, have other names:
//!
//! ```json
//! {"conversations": [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A pear."}],
//! "image": "pear.jpg"}
//! ```
//!
//! TRL's prompt-completion files have two lists, of which the model learns the second:
//!
//! ```json
//! {"prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this?"}]}],
//! "completion": [{"role": "assistant", "content": [{"type": "text", "text": "A pear."}]}], "images": ["pear.jpg"]}
//! ```

use serde_json::{Map, Value};

use super::draft::Draft;
use super::example::{SftExample, TurnRole};
use super::parts::Text;
use crate::error::RowProblem;
use crate::format::columns::{UNREAD, kind_of, object, refuse_tags, refuse_unread, string};

/// Fields of a message that would be left out of the prompt in silence.
const UNREAD_IN_MESSAGE: [&str; 8] =
    ["tool_calls", "function_call", "audio", "reasoning", "reasoning_content", "thinking", "image", "images"];

/// The names of columns and tags, as in an entry of LLaMA-Factory's `dataset_info.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareGptFormat {
    /// The column with the list of messages.
    pub messages: String,
    /// A column with the messages after those. If there is one, only its responses are learned.
    pub completion: Option<String>,
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
            completion: None,
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

    /// The form of TRL's prompt-completion files: `prompt` and `completion`, both lists of messages.
    pub fn prompt_completion() -> Self {
        let format = Self::with("prompt", ["role", "content"], ["user", "assistant"]);
        Self { completion: Some("completion".into()), ..format }
    }

    /// Finds the form of a row: by its column of messages, and by the names that the messages use. `None` if the row has no
    /// such column.
    pub fn detect(row: &Value) -> Option<Self> {
        row.as_object().and_then(Self::of)
    }

    pub(super) fn of(row: &Map<String, Value>) -> Option<Self> {
        let has = |column: &str| row.get(column).is_some_and(|value| !value.is_null());
        let format = [Self::messages(), Self::default(), Self::prompt_completion()]
            .into_iter()
            .find(|format| has(&format.messages) && format.completion.as_deref().is_none_or(has))?;
        let messages = row.get(&format.messages)?.as_array().map_or(&[][..], Vec::as_slice);
        let Some(first) = messages.first() else { return Some(format) };
        let tags = [["role", "content"], ["from", "value"]].into_iter().find(|tags| first.get(tags[0]).is_some());
        let Some(tags) = tags else { return Some(format) };
        let speaks = |name: &str| messages.iter().any(|message| message.get(tags[0]).is_some_and(|role| role == name));
        let speakers = match tags[0] {
            "from" if !speaks("user") => ["human", "gpt"],
            "role" if speaks("human") => ["human", "gpt"],
            _ => ["user", "assistant"],
        };
        Some(Self { completion: format.completion, ..Self::with(&format.messages, tags, speakers) })
    }

    /// Reads one row.
    ///
    /// # Errors
    /// Returns the first problem of the row. A conversation that does not alternate is an error, although LLaMA-Factory
    /// skips it, because a data set must not shrink silently.
    pub fn parse(&self, row: usize, value: &Value) -> Result<SftExample, RowProblem> {
        let columns = object(value)?;
        refuse_unread(columns, &UNREAD)?;
        let mut messages = list(columns, &self.messages)?;
        let mut first_learned = 0;
        if let Some(completion) = &self.completion {
            first_learned = messages.len();
            messages.extend(list(columns, completion)?);
        }
        messages.iter().try_for_each(|message| refuse_unread(message, &UNREAD_IN_MESSAGE))?;
        let mut draft = Draft::new(self.system(columns, &messages)?);
        let turns = usize::from(self.starts_with_system(&messages)?);
        if messages.len() == turns {
            return Err(RowProblem::Empty(self.messages.clone()));
        }
        for (index, message) in messages.iter().enumerate().skip(turns) {
            let role = self.role(index, index - turns, message)?;
            let text = Text::parse(message, &self.content_tag, index + 1)?;
            if role.is_response() && text.text.trim().is_empty() {
                return Err(RowProblem::Empty(self.content_tag.clone()));
            }
            draft.turn(role, text, index >= first_learned && has_weight(message)?, index + 1)?;
        }
        draft.finish(row, columns, &self.images)
    }

    /// Whether the first message is the system text, which OpenAI's newer models call `developer`.
    fn starts_with_system(&self, messages: &[Message<'_>]) -> Result<bool, RowProblem> {
        let is_system = |role: &str| role == self.system_tag || role == "developer";
        messages.first().map_or(Ok(false), |first| Ok(is_system(string(first, &self.role_tag)?)))
    }

    /// Takes the system text from a first system message, otherwise from the system column if it has text.
    fn system(&self, columns: &Map<String, Value>, messages: &[Message<'_>]) -> Result<Option<String>, RowProblem> {
        if self.starts_with_system(messages)? {
            let text = Text::parse(messages[0], &self.content_tag, 1)?;
            return if text.images.is_empty() { Ok(Some(text.text)) } else { Err(RowProblem::ImageInAnswer(1)) };
        }
        let system = match columns.get(&self.system) {
            None | Some(Value::Null) => None,
            Some(_) => Some(string(columns, &self.system)?).filter(|text| !text.is_empty()),
        };
        system.map_or(Ok(()), |text| refuse_tags(text, &self.system))?;
        Ok(system.map(str::to_owned))
    }

    /// The role of turn `turn`, which is the message at `index`; both from 0.
    fn role(&self, index: usize, turn: usize, message: Message<'_>) -> Result<TurnRole, RowProblem> {
        let name = string(message, &self.role_tag)?;
        let allowed = if turn.is_multiple_of(2) {
            [(&self.user_tag, TurnRole::User), (&self.observation_tag, TurnRole::Observation)]
        } else {
            [(&self.assistant_tag, TurnRole::Assistant), (&self.function_tag, TurnRole::Function)]
        };
        let found = allowed.iter().find(|(tag, _)| *tag == name);
        found.map(|(_, role)| *role).ok_or_else(|| RowProblem::UnknownRole {
            message: index + 1,
            role: name.into(),
            expected: format!("{:?} or {:?}", allowed[0].0, allowed[1].0),
        })
    }
}

fn list<'a>(columns: &'a Map<String, Value>, column: &str) -> Result<Vec<Message<'a>>, RowProblem> {
    match columns.get(column) {
        None => Err(RowProblem::MissingField(column.into())),
        Some(Value::Array(list)) => list.iter().map(object).collect(),
        Some(other) => {
            Err(RowProblem::WrongType { field: column.into(), expected: "a list of messages", found: kind_of(other) })
        }
    }
}

/// OpenAI's `weight` of an assistant's message: 0 leaves it out of the loss.
fn has_weight(message: Message<'_>) -> Result<bool, RowProblem> {
    for field in ["weight", "loss", "train", "training"] {
        match message.get(field) {
            None | Some(Value::Null) => {}
            Some(value) => {
                match value.as_bool().map_or_else(|| value.as_f64(), |learned| Some(f64::from(u8::from(learned)))) {
                    Some(0.0) => return Ok(false),
                    Some(1.0) => {}
                    _ => {
                        let (field, found) = (field.into(), value.to_string());
                        return Err(RowProblem::UnknownValue { field, found, expected: "0 or 1, false or true" });
                    }
                }
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::row_image::RowImage;

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
        assert_eq!(ours.images, [RowImage::from("a.jpg")]);
        assert_eq!(ours.response(), " Lime ");
        let one = official(question("<image>?"), json!("a.jpg")).unwrap();
        assert_eq!((one.system, one.images), (None, ours.images));
    }

    #[test]
    fn messages_may_have_either_names_in_either_column() {
        let expected = official(question("<image>?"), json!(["a.jpg"])).unwrap();
        for (column, names) in [
            ("messages", ["from", "value", "human", "gpt"]),
            ("messages", ["role", "content", "human", "gpt"]),
            ("conversations", ["role", "content", "user", "assistant"]),
            ("conversations", ["from", "value", "user", "assistant"]),
        ] {
            let [role, content, user, assistant] = names;
            let row = json!({column: [{role: user, content: "<image>?"}, {role: assistant, content: "Lime"}], "image": "a.jpg"});
            assert_eq!(SftExample::parse(4, &row), Ok(expected.clone()), "{row}");
        }
        let neither = SftExample::parse(4, &json!({"text": "a", "messages": null}));
        assert_eq!(neither, Err(RowProblem::NoConversation("text, messages".into())));
    }

    #[test]
    fn only_a_completion_and_what_has_weight_is_learned() {
        let turn = |role: &str, text: &str| json!({"role": role, "content": text});
        let row = json!({
            "prompt": [turn("system", "Be brief."), turn("user", "Hello"), turn("assistant", "Hi"), turn("user", "<image>?")],
            "completion": [turn("assistant", "Lime")],
            "images": ["a.jpg"],
        });
        let example = SftExample::parse(1, &row).unwrap();
        assert_eq!((example.system.as_deref(), example.turns.len()), (Some("Be brief."), 4));
        assert_eq!(example.learned().collect::<Vec<_>>(), ["Lime"]);
        let mut weighed = json!([turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")]);
        weighed[1]["weight"] = json!(0);
        weighed[3]["weight"] = json!(1.0);
        assert_eq!(official(weighed.clone(), json!([])).unwrap().learned().collect::<Vec<_>>(), ["d"]);
        weighed[3]["weight"] = json!(0);
        assert_eq!(official(weighed.clone(), json!([])), Err(RowProblem::NothingLearned));
        weighed[3]["weight"] = json!(0.5);
        assert!(
            matches!(official(weighed, json!([])), Err(RowProblem::UnknownValue { field, .. }) if field == "weight")
        );
        let text = json!({"prompt": "The sky is", "completion": " blue."});
        assert!(matches!(SftExample::parse(1, &text), Err(RowProblem::WrongType { field, .. }) if field == "prompt"));
    }

    #[test]
    fn a_row_may_have_no_image_and_a_single_one_without_a_place_comes_first() {
        for images in [Value::Null, json!([])] {
            let text = official(question("Add 1 and 2."), images).unwrap();
            assert_eq!((text.images.len(), text.image_put_first), (0, false));
            assert_eq!(text.turns[0].content, "Add 1 and 2.");
        }
        let one = official(question("Which?"), json!(["a.jpg"])).unwrap();
        assert_eq!((one.turns[0].content.as_str(), one.image_put_first), ("<image>Which?", true));
        assert!(!official(question("Which?<image>"), json!(["a.jpg"])).unwrap().image_put_first);
    }

    #[test]
    fn the_system_text_may_be_the_developers() {
        for role in ["system", "developer"] {
            let content = json!([{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]);
            let messages = json!([
                {"role": role, "content": content}, {"role": "user", "content": "?"}, {"role": "assistant", "content": "x"}]);
            assert_eq!(official(messages, json!([])).unwrap().system.as_deref(), Some("Be brief."));
        }
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
        assert!(example.turns.iter().all(|turn| turn.learned == turn.role.is_response()));
    }

    #[test]
    fn what_would_be_left_out_is_refused() {
        for (column, content) in [
            ("videos", json!(["a.mp4"])),
            ("video", json!("a.mp4")),
            ("audios", json!(["a.wav"])),
            ("audio", json!({"path": "a.wav"})),
            ("tools", json!("[{\"name\": \"zoom\"}]")),
            ("tools", json!([{"name": "zoom"}])),
            ("tool_calls", json!([{"id": "1"}])),
        ] {
            let mut row = json!({"messages": question("<image>?"), "images": ["a.jpg"]});
            row[column] = content;
            assert_eq!(SftExample::parse(1, &row), Err(RowProblem::Unread(column.into())));
            for empty in [Value::Null, json!([]), json!(""), json!("[]"), json!([null])] {
                row[column] = empty;
                assert!(SftExample::parse(1, &row).is_ok(), "{row}");
            }
        }
        let mut called = question("<image>?");
        called[1]["content"] = Value::Null;
        called[1]["tool_calls"] = json!([{"id": "1"}]);
        assert_eq!(official(called, json!(["a.jpg"])), Err(RowProblem::Unread("tool_calls".into())));
        for (text, tag) in [("<video>?", "<video>"), ("<audio>?", "<audio>"), ("<img>a.jpg</img>?", "<img>")] {
            assert_eq!(
                official(question(text), json!([])),
                Err(RowProblem::UnreadTag { field: "content".into(), tag }),
            );
        }
    }

    #[test]
    fn every_bad_row_says_what_is_wrong() {
        let mismatch =
            |placeholders, images| RowProblem::PlaceholderCount { placeholders, images, column: "images".into() };
        let cases = [
            (official(question("?"), json!(["a", "b"])), mismatch(0, 2)),
            (official(question("<image>?"), json!(["a", "b"])), mismatch(1, 2)),
            (official(question("<image>?"), Value::Null), mismatch(1, 0)),
            (official(question("<image>?"), json!([""])), mismatch(1, 0)),
            (
                official(
                    json!([{"role": "user", "content": "<image>"}, {"role": "assistant", "content": " \n"}]),
                    json!(["a"]),
                ),
                RowProblem::Empty("content".into()),
            ),
            (
                official(
                    json!([{"role": "user", "content": "?"}, {"role": "assistant", "content": "<image>"}]),
                    json!(["a"]),
                ),
                RowProblem::ImageInAnswer(2),
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
        let both = json!({"messages": question("<image>?"), "images": ["a"], "image": "b"});
        assert_eq!(SftExample::parse(1, &both), Err(RowProblem::TwoImageColumns));
    }

    #[test]
    fn an_image_that_would_be_left_out_is_refused_where_it_stands() {
        let row = |user: serde_json::Value, more: serde_json::Value| {
            let mut row = json!({"messages": [user, {"role": "assistant", "content": "Lime"}]});
            row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            SftExample::parse(1, &row)
        };
        let user = |more: serde_json::Value| {
            let mut user = json!({"role": "user", "content": "Which?"});
            user.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            user
        };
        let none = json!({});
        for column in ["image_path", "image_url", "img"] {
            let found = row(user(none.clone()), json!({column: "a.jpg"}));
            assert_eq!(found, Err(RowProblem::Unread(column.into())));
            // Beside an image that is read it is a detail.
            assert!(row(user(none.clone()), json!({column: "a.jpg", "images": ["a.jpg"]})).is_ok());
        }
        assert_eq!(row(user(json!({"images": ["a.jpg"]})), none.clone()), Err(RowProblem::Unread("images".into())));
        let part = json!({"role": "user", "content": [{"type": "text", "text": "Which?", "image": "a.jpg"}]});
        assert!(matches!(row(part, none.clone()), Err(RowProblem::UnreadPart { message: 1, .. })));
        assert!(row(user(json!({"image": null, "images": []})), none).is_ok());
    }

    #[test]
    fn turns_that_are_marked_are_not_learned() {
        for (mark, value) in
            [("weight", json!(0)), ("loss", json!(false)), ("train", json!(false)), ("training", json!(0.0))]
        {
            let row = json!({"messages": [
                {"role": "user", "content": "a"}, {"role": "assistant", "content": "bad", mark: value},
                {"role": "user", "content": "b"}, {"role": "assistant", "content": "good", mark: true}]});
            assert_eq!(SftExample::parse(1, &row).unwrap().learned().collect::<Vec<_>>(), ["good"], "{mark}");
        }
        let row =
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "loss": 0.5}]});
        assert!(matches!(SftExample::parse(1, &row), Err(RowProblem::UnknownValue { field, .. }) if field == "loss"));
    }
}
