//! Finds the chat template of a checkpoint folder among the places where transformers looks for it, in its order:
//! `processor_config.json`, `chat_template.jinja`, `chat_template.json`, `additional_chat_templates/default.jinja`,
//! `tokenizer_config.json`. In JSON it may be one of several with names; then it is the one called `default`.

use std::{collections::BTreeMap, path::Path};

use fieldmark_model::reading;
use serde_json::Value;

use crate::{
    error::ProcessorError,
    remarks::Remarks,
    text::{Tokenizer, chat::ChatTemplate},
};

const NESTED: &str = "processor_config.json";
pub(crate) const JINJA: &str = "chat_template.jinja";
pub(crate) const JSON: &str = "chat_template.json";
pub(crate) const ADDITIONAL: &str = "additional_chat_templates";
const TOKENIZER: &str = "tokenizer_config.json";

/// The templates of a folder.
pub(crate) struct Templates {
    /// The one that is used.
    pub(crate) chat: ChatTemplate,
    /// Those with another name, such as `tool_use`.
    pub(crate) named: BTreeMap<String, String>,
}

/// A template that may be used, and those with names beside it.
struct Candidate {
    /// The file that it is in.
    file: String,
    source: String,
    named: BTreeMap<String, String>,
}

impl Candidate {
    fn new(file: &str, source: String) -> Self {
        Self { file: file.into(), source, named: BTreeMap::new() }
    }

    /// Reads the value of `chat_template` in the file `file` of `dir`: a template, a list of `{name, template}`, or a mapping
    /// from name to template.
    fn from_json(dir: &Path, file: &str, value: &Value) -> Result<Option<Self>, ProcessorError> {
        let (path, key) = (dir.join(file), "chat_template".to_owned());
        let refuse = |reason: String| ProcessorError::Config { path: path.clone(), key: key.clone(), reason };
        let form = || refuse("must be a template, or templates with names, one of them `default`".into());
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(form);
        let mut named = BTreeMap::new();
        match value {
            Value::Null => return Ok(None),
            Value::String(source) => return Ok(Some(Self::new(file, source.clone()))),
            Value::Object(map) => {
                for (name, template) in map {
                    named.insert(name.clone(), text(template)?);
                }
            }
            Value::Array(list) => {
                for entry in list {
                    let part = |key: &str| entry.get(key).ok_or_else(form).and_then(text);
                    named.insert(part("name")?, part("template")?);
                }
            }
            _ => return Err(form()),
        }
        let Some(source) = named.remove("default") else {
            let names: Vec<&str> = named.keys().map(String::as_str).collect();
            let reason = format!("has no template called `default`, only {names:?}; call the one to use `default`");
            return Err(refuse(reason));
        };
        // They are written again as files of these names.
        named.retain(|name, _| name.chars().all(|c| c.is_alphanumeric() || "_-".contains(c)));
        Ok(Some(Self { named, ..Self::new(file, source) }))
    }
}

/// Reads the templates of a folder. One that shows no images is passed over with a remark, because what it renders has no
/// place for them; if none is left, the template of Qwen2.5-VL is used.
pub(crate) fn read_templates(
    dir: &Path,
    nested: Option<&Value>,
    tokenizer: &Tokenizer,
    remarks: &mut Remarks,
) -> Result<Templates, ProcessorError> {
    let mut named = additional_templates(dir)?;
    let variables = tokenizer.template_variables()?;
    let candidates = candidates(dir, nested, tokenizer, named.remove("default"))?;
    let mut passed_over = Vec::new();
    for candidate in &candidates {
        let Candidate { file, source, .. } = candidate;
        if source.trim().is_empty() {
            passed_over.push(format!("the chat template in {file} is empty"));
            continue;
        }
        let in_file = |error| match error {
            ProcessorError::Template(reason) => {
                ProcessorError::Template(format!("{}: {reason}", dir.join(file).display()))
            }
            other => other,
        };
        let template = ChatTemplate::new(source.clone()).map_err(in_file)?.with_variables(variables.clone());
        if !template.shows_images() {
            passed_over.push(format!("the chat template in {file} has no place for images"));
            continue;
        }
        remark(dir, candidate, &candidates, &variables, remarks);
        if !passed_over.is_empty() {
            remarks.notes.push(format!("{}: {}; that in {file} is used", dir.display(), passed_over.join("; ")));
        }
        for (name, source) in &candidate.named {
            named.entry(name.clone()).or_insert_with(|| source.clone());
        }
        return Ok(Templates { chat: template, named });
    }
    if passed_over.is_empty() {
        passed_over.push("has no chat template".into());
    }
    let why = passed_over.join("; ");
    remarks.notes.push(format!("{}: {why}; the template of Qwen2.5-VL is used", dir.display()));
    Ok(Templates { chat: ChatTemplate::qwen2_5_vl()?.with_variables(variables), named })
}

/// The templates that may be used, the first one first.
fn candidates(
    dir: &Path,
    nested: Option<&Value>,
    tokenizer: &Tokenizer,
    additional: Option<String>,
) -> Result<Vec<Candidate>, ProcessorError> {
    let mut found = Vec::new();
    if let Some(value) = nested.and_then(|json| json.get("chat_template")) {
        found.extend(Candidate::from_json(dir, NESTED, value)?);
    }
    let jinja = dir.join(JINJA);
    if jinja.exists() {
        found.push(Candidate::new(JINJA, reading::text(&jinja)?));
    }
    let older = dir.join(JSON);
    if older.exists() {
        let json = reading::json(&older, "chat template")?;
        // A file without the key is as wrong as one with another value.
        let value = json.get("chat_template").filter(|value| !value.is_null()).unwrap_or(&Value::Bool(false));
        found.extend(Candidate::from_json(dir, JSON, value)?);
    }
    found.extend(additional.map(|source| Candidate::new(&format!("{ADDITIONAL}/default.jinja"), source)));
    if let Some(value) = tokenizer.template() {
        found.extend(Candidate::from_json(dir, TOKENIZER, value)?);
    }
    Ok(found)
}

/// Says what a reader should know about the template that is used.
fn remark(
    dir: &Path,
    used: &Candidate,
    candidates: &[Candidate],
    variables: &BTreeMap<String, Value>,
    remarks: &mut Remarks,
) {
    let other = candidates.iter().find(|other| other.file == JSON && other.source != used.source);
    if used.file == JINJA && other.is_some() {
        remarks
            .contradictions
            .push(format!("{}: {JINJA} and {JSON} differ; the former is used. Remove the other one", dir.display()));
    }
    let uses = |name: &&str| used.source.contains(name) && !variables.contains_key(*name);
    if let Some(name) = ["eos_token", "bos_token", "pad_token", "unk_token"].iter().copied().find(uses) {
        remarks.notes.push(format!(
            "{}: the chat template uses `{name}`, but tokenizer_config.json names no such token; it is empty",
            dir.display()
        ));
    }
}

/// The templates in the folder for those that have a name.
fn additional_templates(dir: &Path) -> Result<BTreeMap<String, String>, ProcessorError> {
    let folder = dir.join(ADDITIONAL);
    let mut found = BTreeMap::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in std::fs::read_dir(&folder).map_err(ProcessorError::io(&folder))? {
        let path = entry.map_err(ProcessorError::io(&folder))?.path();
        if let (Some(name), Some("jinja")) = (path.file_stem(), path.extension().and_then(|end| end.to_str())) {
            found.insert(name.to_string_lossy().into_owned(), reading::text(&path)?);
        }
    }
    Ok(found)
}
