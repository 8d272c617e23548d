//! The content of a message: a string, or a list of parts as OpenAI, Qwen and TRL write it.
//!
//! | Part | Who writes it |
//! | --- | --- |
//! | `{"type": "text", "text": "Which?"}` | all |
//! | `{"type": "image"}` | TRL: the next image of the row's `images` |
//! | `{"type": "image", "image": "a.jpg"}` (also `path`, `url`, `base64`) | Qwen, transformers |
//! | `{"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}` | OpenAI |

use serde_json::{Map, Value};

use crate::error::RowProblem;
use crate::format::columns::{kind_of, object, refuse_tags, string};
use crate::format::image_values::image;
use crate::prompt::IMAGE_PLACEHOLDER;
use crate::row_image::RowImage;

/// The text of a message with `<image>` at the place of each image, and what stands there: an image that the message
/// itself has, or `None` for the next image of the row's column.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) images: Vec<Option<RowImage>>,
}

/// Settings of a part that change the size of its image, which the recipe decides here.
const SIZES: [&str; 4] = ["min_pixels", "max_pixels", "resized_height", "resized_width"];

impl Text {
    /// Reads the content of message `number`, counted from 1.
    pub(super) fn parse(message: &Map<String, Value>, field: &str, number: usize) -> Result<Self, RowProblem> {
        let mut found = Self::default();
        match message.get(field) {
            Some(Value::Array(parts)) => {
                for part in parts {
                    found.part(part, number)?;
                }
            }
            _ => found.text(string(message, field)?),
        }
        refuse_tags(&found.text, field)?;
        Ok(found)
    }

    fn text(&mut self, text: &str) {
        self.images.extend(text.matches(IMAGE_PLACEHOLDER).map(|_| None));
        self.text.push_str(text);
    }

    fn part(&mut self, part: &Value, number: usize) -> Result<(), RowProblem> {
        if let Value::String(text) = part {
            self.text(text);
            return Ok(());
        }
        let part = object(part)?;
        let given = |key: &str| part.get(key).filter(|value| !value.is_null());
        let kind = match given("type") {
            Some(Value::String(kind)) => kind.as_str(),
            // Qwen's template takes a part for what it has.
            None => ["text", "image", "image_url"].into_iter().find(|key| given(key).is_some()).unwrap_or(""),
            Some(other) => {
                return Err(RowProblem::WrongType {
                    field: "type".into(),
                    expected: "a string",
                    found: kind_of(other),
                });
            }
        };
        match kind {
            // Qwen's template would take such a part for an image, and forget its text.
            "text" if given("image").or_else(|| given("image_url")).is_some() => {
                return Err(RowProblem::UnreadPart { message: number, kind: "text with an image".into() });
            }
            "text" => self.text(string(part, "text")?),
            "image" | "image_url" => {
                if let Some(name) = SIZES.into_iter().find(|name| given(name).is_some()) {
                    return Err(RowProblem::PartSize { message: number, field: name });
                }
                let source = ["image", "image_url", "path", "url", "base64", "bytes"]
                    .into_iter()
                    .find(|key| given(key).is_some());
                let found = match source {
                    None if kind == "image_url" => return Err(RowProblem::MissingField("image_url".into())),
                    None => None,
                    Some("path" | "base64" | "bytes") => Some(image(&Value::Object(part.clone()), "image")?),
                    Some(key) => Some(image(&part[key], key)?),
                };
                self.images.push(found);
                self.text.push_str(IMAGE_PLACEHOLDER);
            }
            other => return Err(RowProblem::UnreadPart { message: number, kind: other.into() }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::format::conversations::SftExample;

    fn read(parts: Value, images: Value) -> Result<SftExample, RowProblem> {
        let answer = json!([{"type": "text", "text": "Lime"}]);
        let messages = json!([{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]);
        SftExample::parse(4, &json!({"messages": messages, "images": images}))
    }

    #[test]
    fn parts_become_text_with_the_place_of_each_image() {
        let with = |value: Value| json!([value, {"type": "text", "text": "Which"}, {"type": "text", "text": "?"}]);
        for (part, images) in [
            (json!({"type": "image"}), json!(["a.jpg"])),
            (json!({"type": "image", "text": null}), json!("a.jpg")),
            (json!({"type": "image", "image": "a.jpg"}), Value::Null),
            (json!({"type": "image", "path": "a.jpg"}), json!([])),
            (json!({"type": "image", "url": "a.jpg"}), json!([])),
            (json!({"image": "a.jpg"}), json!([])),
            (json!({"type": "image_url", "image_url": {"url": "a.jpg", "detail": "high"}}), Value::Null),
            (json!({"type": "image_url", "image_url": "a.jpg"}), Value::Null),
        ] {
            let found = read(with(part.clone()), images).unwrap();
            assert_eq!(found.turns[0].content, "<image>Which?", "{part}");
            assert_eq!((&found.images[..], found.response()), (&[RowImage::from("a.jpg")][..], "Lime"), "{part}");
        }
        // An image of the message and two of the column, in the order of their places.
        let mixed =
            json!([{"type": "image"}, {"type": "image", "image": "own.jpg"}, {"type": "text", "text": "<image>"}]);
        let found = read(mixed, json!(["a.jpg", "b.jpg"])).unwrap();
        assert_eq!(found.images, ["a.jpg".into(), "own.jpg".into(), RowImage::from("b.jpg")]);
        for (part, expected) in [
            (json!({"type": "video", "video": "a.mp4"}), RowProblem::UnreadPart { message: 1, kind: "video".into() }),
            (json!({"type": "input_audio"}), RowProblem::UnreadPart { message: 1, kind: "input_audio".into() }),
            (json!({"type": "image_url"}), RowProblem::MissingField("image_url".into())),
            (
                json!({"type": "image", "image": "a.jpg", "max_pixels": 9}),
                RowProblem::PartSize { message: 1, field: "max_pixels" },
            ),
            (
                json!({"type": "image", "url": "https://x.org/a.jpg"}),
                RowProblem::ImageUrl("https://x.org/a.jpg".into()),
            ),
        ] {
            assert_eq!(read(with(part), Value::Null).unwrap_err(), expected);
        }
    }
}
