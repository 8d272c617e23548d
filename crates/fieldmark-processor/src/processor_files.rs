//! The processor's files in a checkpoint folder, read and written as transformers does.
//!
//! Image processor: `image_processor` of `processor_config.json` (transformers 5), else `preprocessor_config.json`.
//! Tokenizer: `tokenizer.json` and `tokenizer_config.json`. Chat template: the first of `processor_config.json`,
//! `chat_template.jinja`, `chat_template.json`, `additional_chat_templates/default.jinja` and `tokenizer_config.json`.

use std::{collections::BTreeMap, path::Path};

use fieldmark_model::{ModelError, Qwen25VlConfig, files::write_whole, reading};
use serde_json::{Value, json};

use crate::{
    error::ProcessorError,
    image::{ImageProcessor, ImageProcessorConfig},
    processor::{Processor, Unused},
    text::{Tokenizer, chat::ChatTemplate},
};

const NESTED: &str = "processor_config.json";
const OLDER: &str = "preprocessor_config.json";
const JINJA: &str = "chat_template.jinja";
const JSON: &str = "chat_template.json";
const ADDITIONAL: &str = "additional_chat_templates";

/// What a reader should know about the files of a processor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// What is used that the folder does not have, such as the chat template of Qwen2.5-VL.
    pub notes: Vec<String>,
    /// Files that contradict each other, and which of them counts.
    pub contradictions: Vec<String>,
}

impl Processor {
    /// Reads a checkpoint folder, and passes over the remarks of [`Processor::from_dir_with_remarks`].
    ///
    /// # Errors
    /// Returns an error if a file is missing, is damaged or disagrees with another. All but
    /// [`ProcessorError::Template`] name the file.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, ProcessorError> {
        Self::from_dir_with_remarks(dir).map(|(processor, _)| processor)
    }

    /// Reads a checkpoint folder, and returns what a reader should know about it. If the folder has a `config.json`, it
    /// must agree with the other files.
    ///
    /// # Errors
    /// Returns the errors of [`Processor::from_dir`].
    pub fn from_dir_with_remarks(dir: impl AsRef<Path>) -> Result<(Self, Remarks), ProcessorError> {
        let dir = dir.as_ref();
        let mut remarks = Remarks::default();
        let nested = read_json(&dir.join(NESTED))?;
        let images = read_images(dir, nested.as_ref(), &mut remarks)?;
        let tokenizer = Tokenizer::from_file(dir.join("tokenizer.json"))?;
        let mut additional = additional_templates(dir)?;
        let template = read_template(dir, nested.as_ref(), &tokenizer, additional.remove("default"), &mut remarks)?;
        let mut processor = Self::new(tokenizer, ImageProcessor::new(images), template);
        let video = nested.as_ref().and_then(|json| json.get("video_processor")).filter(|json| json.is_object());
        processor.unused = Unused { video_processor: video.cloned(), templates: additional };
        let config = dir.join("config.json");
        if config.exists() {
            let model = Qwen25VlConfig::from_json_file(&config)?;
            processor.check(&model, config)?;
            processor = processor.with_context(model.text.max_position_embeddings);
        }
        Ok((processor, remarks))
    }

    /// Writes the files from which [`Processor::from_dir`] and transformers load this processor: those of transformers 5,
    /// and `preprocessor_config.json` for transformers 4. Each file appears whole or not at all.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Io`] or [`ProcessorError::Tokenizer`].
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), ProcessorError> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(ProcessorError::io(dir))?;
        let images = self.images.config();
        let video = || {
            let mut video = images.to_nested_json();
            if let Some(map) = video.as_object_mut() {
                map.shift_remove("image_processor_type");
                map.insert("video_processor_type".into(), json!("Qwen2VLVideoProcessor"));
            }
            video
        };
        let processor = json!({
            "image_processor": images.to_nested_json(),
            "processor_class": "Qwen2_5_VLProcessor",
            "video_processor": self.unused.video_processor.clone().unwrap_or_else(video),
        });
        write(dir, "tokenizer.json", &self.tokenizer.to_json()?)?;
        for (file, value) in
            [(OLDER, images.to_json()), (NESTED, processor), ("tokenizer_config.json", self.tokenizer.config_json()?)]
        {
            write(dir, file, &format!("{value:#}\n"))?;
        }
        write(dir, JINJA, self.template.source())?;
        // The older form of the template may be another one's, and transformers would prefer it.
        let older = dir.join(JSON);
        if older.exists() {
            std::fs::remove_file(&older).map_err(ProcessorError::io(&older))?;
        }
        if !self.unused.templates.is_empty() {
            let folder = dir.join(ADDITIONAL);
            std::fs::create_dir_all(&folder).map_err(ProcessorError::io(&folder))?;
            for (name, source) in &self.unused.templates {
                write(&folder, &format!("{name}.jinja"), source)?;
            }
        }
        Ok(())
    }
}

fn read_json(path: &Path) -> Result<Option<Value>, ProcessorError> {
    Ok(if path.exists() { Some(reading::json(path, "processor configuration")?) } else { None })
}

fn read_images(
    dir: &Path,
    nested: Option<&Value>,
    remarks: &mut Remarks,
) -> Result<ImageProcessorConfig, ProcessorError> {
    let older = dir.join(OLDER);
    let nested = nested.and_then(|json| json.get("image_processor")).filter(|json| json.is_object());
    let Some(json) = nested else {
        if !older.exists() {
            let problem = "has neither processor_config.json with `image_processor` nor preprocessor_config.json, which say \
                           how photographs are prepared; copy one of them from the folder of the base model";
            return Err(ModelError::Refused { path: dir.into(), problem: problem.into() }.into());
        }
        return ImageProcessorConfig::from_file(older);
    };
    let images = ImageProcessorConfig::from_value(json, dir.join(NESTED))?;
    // The older file is not read, so it may be of any kind.
    if let Some(other) = older.exists().then(|| ImageProcessorConfig::from_file(&older)).and_then(Result::ok)
        && other != images
    {
        remarks.contradictions.push(format!(
            "{}: processor_config.json and preprocessor_config.json differ; the former is used, as transformers 5 does",
            dir.display()
        ));
    }
    Ok(images)
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

fn read_template(
    dir: &Path,
    nested: Option<&Value>,
    tokenizer: &Tokenizer,
    additional: Option<String>,
    remarks: &mut Remarks,
) -> Result<ChatTemplate, ProcessorError> {
    let variables = tokenizer.template_variables()?;
    let compile = |source: String| Ok(ChatTemplate::new(source)?.with_variables(variables.clone()));
    let jinja = dir.join(JINJA);
    let jinja = if jinja.exists() { Some(reading::text(&jinja)?) } else { None };
    let older = older_template(&dir.join(JSON))?;
    if let (Some(jinja), Some(older)) = (&jinja, &older)
        && jinja != older
    {
        remarks
            .contradictions
            .push(format!("{}: {JINJA} and {JSON} differ; the former is used. Remove the other one", dir.display()));
    }
    let in_config = nested.and_then(|json| json.get("chat_template")).and_then(Value::as_str).map(str::to_owned);
    if let Some(source) = in_config.or(jinja).or(older).or(additional) {
        let uses = |name: &str| source.contains(name) && !variables.contains_key(name);
        if let Some(name) = ["eos_token", "bos_token", "pad_token", "unk_token"].into_iter().find(|name| uses(name)) {
            remarks.notes.push(format!(
                "{}: the chat template uses `{name}`, but tokenizer_config.json names no such token; it is empty",
                dir.display()
            ));
        }
        return compile(source);
    }
    let said = |what: &str| format!("{}: {what}; the template of Qwen2.5-VL is used", dir.display());
    match tokenizer.template() {
        Some(source) => {
            let template = compile(source.into())?;
            if template.shows_images() {
                return Ok(template);
            }
            remarks.notes.push(said("the chat template in tokenizer_config.json has no place for images"));
        }
        None => remarks.notes.push(said("has no chat template")),
    }
    Ok(ChatTemplate::qwen2_5_vl()?.with_variables(variables))
}

/// The template in the older `chat_template.json`.
fn older_template(path: &Path) -> Result<Option<String>, ProcessorError> {
    if !path.exists() {
        return Ok(None);
    }
    let refuse = |reason: String| ProcessorError::Config { path: path.into(), key: "chat_template".into(), reason };
    let value: Value =
        serde_json::from_str(&reading::text(path)?).map_err(|error| refuse(format!("is not valid: {error}")))?;
    match value.get("chat_template").and_then(Value::as_str) {
        Some(source) => Ok(Some(source.into())),
        None => Err(refuse("must be a string".into())),
    }
}

fn write(dir: &Path, file: &str, text: &str) -> Result<(), ProcessorError> {
    let path = dir.join(file);
    write_whole(&path, text.as_bytes()).map_err(ProcessorError::io(&path))
}
