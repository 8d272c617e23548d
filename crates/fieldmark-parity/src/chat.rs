//! Compares rendered conversations, expanded image placeholders and, if there is a tokenizer, token ids.

use std::{io::Read, path::Path};

use fieldmark_model::GridThw;
use fieldmark_processor::{ChatOptions, ChatTemplate, Message, Tokenizer, expand_images};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use super::{
    compare::{Report, Status},
    error::{ParityError, in_file},
    images::config,
    json::json,
};

/// Largest side of a grid in patches. It keeps the expanded text below a hundred megabytes.
const MAX_SIDE: usize = 256;
/// Largest tokenizer after decompression, in bytes.
const MAX_TOKENIZER: u64 = 1 << 28;

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
    let tokenizer = tokenizer.map(open).transpose()?;
    let template = ChatTemplate::qwen2_5_vl()?;
    let merge = config(folder)?.merge_size;
    let [t, h, w] = cases.image_grid_thw;
    if cases.image_grid_thw.iter().any(|side| !(1..=MAX_SIDE).contains(side)) {
        let reason = format!("{t}x{h}x{w} is not an image grid; each side must be from 1 to {MAX_SIDE}");
        return Err(in_file(folder, "cases.json", "image_grid_thw", reason));
    }
    let grid = GridThw { t, h, w };
    let mut report = Report::default();
    for (i, case) in cases.cases.iter().enumerate() {
        let options =
            ChatOptions { add_generation_prompt: case.add_generation_prompt, add_vision_id: case.add_vision_id };
        let wrong = |error| in_file(folder, "cases.json", &format!("case {i}"), error);
        let rendered = template.render(&case.messages, options).map_err(wrong)?;
        report.equal(&format!("case {i} rendered"), &rendered, &case.rendered);
        let images = case.messages.iter().map(|message| message.content.images()).sum();
        let expanded = expand_images("messages", &rendered, &vec![grid; images], merge).map_err(wrong)?;
        report.equal(&format!("case {i} expanded"), &expanded, &case.expanded);
        let name = format!("case {i} input_ids");
        match (&tokenizer, &case.input_ids) {
            (_, None) => {}
            (Some(tokenizer), Some(ids)) => report.equal(&name, &tokenizer.encode(&expanded).map_err(wrong)?, ids),
            (None, Some(_)) => report.push(&name, Status::Unknown, "give --tokenizer FILE to compare it"),
        }
    }
    Ok(report)
}

/// Opens a `tokenizer.json`, plain or gzipped.
fn open(path: &Path) -> Result<Tokenizer, ParityError> {
    let failed = |error: std::io::Error| ParityError::Folder(format!("{}: {error}", path.display()));
    let bytes = std::fs::read(path).map_err(failed)?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(Tokenizer::from_file(path)?);
    }
    let mut json = Vec::new();
    MultiGzDecoder::new(&bytes[..]).take(MAX_TOKENIZER).read_to_end(&mut json).map_err(failed)?;
    Ok(Tokenizer::from_bytes(&json, &path.display().to_string())?)
}
