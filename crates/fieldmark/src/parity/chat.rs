//! Rendered conversations, expanded image placeholders and, with a tokenizer, token ids.

use std::path::Path;

use fieldmark_model::GridThw;
use fieldmark_processor::{ChatOptions, ChatTemplate, Message, Tokenizer, expand_images};
use serde::Deserialize;

use super::{
    ParityError,
    compare::{Report, Status},
    images::json,
};

#[derive(Deserialize)]
struct Cases {
    image_grid_thw: [usize; 3],
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<Message>,
    add_generation_prompt: bool,
    #[serde(default)]
    add_vision_id: bool,
    rendered: String,
    expanded: String,
    input_ids: Option<Vec<u32>>,
}

pub(super) fn compare(folder: &Path, tokenizer: Option<&Path>) -> Result<Report, ParityError> {
    let cases: Cases = json(folder, "cases.json")?;
    let tokenizer = tokenizer.map(Tokenizer::from_file).transpose()?;
    let template = ChatTemplate::qwen2_5_vl()?;
    let [t, h, w] = cases.image_grid_thw;
    let grid = GridThw { t, h, w };
    let mut report = Report::default();
    for (i, case) in cases.cases.iter().enumerate() {
        let options =
            ChatOptions { add_generation_prompt: case.add_generation_prompt, add_vision_id: case.add_vision_id };
        let rendered = template.render(&case.messages, options)?;
        report.equal(&format!("case {i} rendered"), &rendered, &case.rendered);
        let images = case.messages.iter().map(|message| message.content.images()).sum();
        let expanded = expand_images("case", &rendered, &vec![grid; images], 2)?;
        report.equal(&format!("case {i} expanded"), &expanded, &case.expanded);
        let name = format!("case {i} input_ids");
        match (&tokenizer, &case.input_ids) {
            (_, None) => {}
            (Some(tokenizer), Some(ids)) => report.equal(&name, &tokenizer.encode(&expanded)?, ids),
            (None, Some(_)) => report.push(&name, Status::Unknown, "give --tokenizer FILE to compare"),
        }
    }
    Ok(report)
}
