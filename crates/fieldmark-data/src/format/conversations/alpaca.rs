//! One question and its answer, as Alpaca's files have them. Reference: LLaMA-Factory's `AlpacaDatasetConverter`.
//!
//! ```json
//! {"instruction": "<image>Which bird is this?", "input": "It was seen in a garden.", "output": "Robin",
//! "images": ["robin_01.jpg"]}
//! ```
//!
//! | Field | Needed? | Meaning |
//! | --- | --- | --- |
//! | `instruction` | yes | the question; `<image>` marks the place of an image |
//! | `input` | no | more of the question, on a line of its own |
//! | `output` | yes | the answer, which the model learns |
//! | `system` | no | the system text |
//! | `history` | no | earlier pairs of question and answer, which are learned too |
//! | `images`, or `image` | no | the image of each `<image>`, in order |

use serde_json::{Map, Value, json};

use super::draft::Draft;
use super::example::{SftExample, TurnRole};
use super::parts::Text;
use crate::error::RowProblem;
use crate::format::columns::{UNREAD, filled, kind_of, refuse_tags, refuse_unread, string};

/// Whether a row has the fields of this form.
pub(super) fn is_alpaca(columns: &Map<String, Value>) -> bool {
    ["instruction", "output"].into_iter().all(|field| columns.contains_key(field))
}

/// Reads a row.
pub(super) fn parse(row: usize, columns: &Map<String, Value>) -> Result<SftExample, RowProblem> {
    refuse_unread(columns, &UNREAD)?;
    let system = text(columns, "system")?;
    system.as_deref().map_or(Ok(()), |text| refuse_tags(text, "system"))?;
    let mut draft = Draft::new(system);
    let mut number = 0;
    let mut pair = |question: &str, answer: &str| {
        let turns = [(TurnRole::User, "instruction", question), (TurnRole::Assistant, "output", answer)];
        turns.into_iter().try_for_each(|(role, field, text)| {
            number += 1;
            let one = Map::from_iter([(field.to_owned(), json!(text))]);
            draft.turn(role, Text::parse(&one, field, number)?, true, number)
        })
    };
    for earlier in history(columns)? {
        let [question, answer] = earlier;
        pair(question, answer)?;
    }
    let instruction = string(columns, "instruction")?;
    let question = match text(columns, "input")? {
        Some(input) if instruction.trim().is_empty() => input,
        Some(input) => format!("{instruction}\n{input}"),
        None => filled(columns, "instruction")?.to_owned(),
    };
    pair(&question, filled(columns, "output")?)?;
    draft.finish(row, columns, "images")
}

/// An optional text; `None` if it is missing, null or blank.
fn text(columns: &Map<String, Value>, field: &str) -> Result<Option<String>, RowProblem> {
    match columns.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => Ok(Some(string(columns, field)?.to_owned()).filter(|text| !text.trim().is_empty())),
    }
}

fn history(columns: &Map<String, Value>) -> Result<Vec<[&str; 2]>, RowProblem> {
    let wrong = |found: &Value| RowProblem::WrongType {
        field: "history".into(),
        expected: "a list of pairs of question and answer",
        found: kind_of(found),
    };
    let pairs = match columns.get("history") {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(pairs)) => pairs,
        Some(other) => return Err(wrong(other)),
    };
    let pair = |pair: &'_ Value| match pair.as_array().map(Vec::as_slice) {
        Some([Value::String(_), Value::String(answer)]) if answer.trim().is_empty() => {
            Err(RowProblem::Empty("history".into()))
        }
        Some([Value::String(_), Value::String(_)]) => Ok(()),
        _ => Err(wrong(pair)),
    };
    pairs.iter().try_for_each(pair)?;
    Ok(pairs.iter().filter_map(|pair| Some([pair.get(0)?.as_str()?, pair.get(1)?.as_str()?])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<SftExample, RowProblem> {
        parse(3, value.as_object().unwrap())
    }

    #[test]
    fn three_fields_become_turns() {
        let example = read(json!({
            "instruction": "Which?", "input": "<image>Small.", "output": " Robin ", "image": "a.jpg",
            "system": "Be brief.", "history": [["Hello", "Hi"]],
        }))
        .unwrap();
        let texts: Vec<&str> = example.turns.iter().map(|turn| turn.content.as_str()).collect();
        assert_eq!(texts, ["Hello", "Hi", "Which?\n<image>Small.", " Robin "]);
        assert!(example.turns.iter().all(|turn| turn.learned == turn.role.is_response()));
        assert_eq!((example.row, example.system.as_deref()), (3, Some("Be brief.")));
        assert_eq!(example.images, ["a.jpg".into()]);
        let text = read(json!({"instruction": "Add 1 and 2.", "input": "", "output": "3"})).unwrap();
        assert_eq!((text.turns[0].content.as_str(), text.images.len(), text.system), ("Add 1 and 2.", 0, None));
    }

    #[test]
    fn a_bad_field_is_named() {
        let empty = |field: &str| RowProblem::Empty(field.into());
        for (row, expected) in [
            (json!({"instruction": "", "input": "", "output": "3"}), empty("instruction")),
            (json!({"instruction": "a", "output": " "}), empty("output")),
            (json!({"instruction": "a", "output": "b", "history": [["a", ""]]}), empty("history")),
            (json!({"instruction": "a", "output": "b", "tools": "[{}, 1]"}), RowProblem::Unread("tools".into())),
        ] {
            assert_eq!(read(row).unwrap_err(), expected);
        }
        let wrong = read(json!({"instruction": "a", "output": "b", "history": [["a"]]})).unwrap_err();
        assert!(matches!(&wrong, RowProblem::WrongType { field, .. } if field == "history"), "{wrong}");
    }
}
