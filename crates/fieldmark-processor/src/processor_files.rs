//! The processor's files in a checkpoint folder, read and written as transformers does.
//!
//! Image processor: `image_processor` of `processor_config.json` (transformers 5), else `preprocessor_config.json`.
//! Tokenizer: `tokenizer.json`, else `vocab.json` and `merges.txt`; and `tokenizer_config.json`. Chat template: see `processor_templates.rs`.

use std::path::Path;

use fieldmark_model::{ModelError, Qwen25VlConfig, files::write_whole, reading};
use serde_json::{Value, json};

use crate::{
    error::ProcessorError,
    image::{ImageProcessor, ImageProcessorConfig},
    processor::{Processor, Unused},
    processor_templates::{ADDITIONAL, JINJA, JSON, Templates, read_templates},
    remarks::Remarks,
    text::Tokenizer,
};

const NESTED: &str = "processor_config.json";
const OLDER: &str = "preprocessor_config.json";

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
        reading::refuse_dangling(dir)?;
        let mut remarks = Remarks::default();
        let nested = read_json(&dir.join(NESTED))?;
        let images = read_images(dir, nested.as_ref(), &mut remarks)?;
        let tokenizer = Tokenizer::from_folder(dir)?;
        let Templates { chat, named } = read_templates(dir, nested.as_ref(), &tokenizer, &mut remarks)?;
        let mut processor = Self::new(tokenizer, ImageProcessor::new(images), chat);
        let video = nested.as_ref().and_then(|json| json.get("video_processor")).filter(|json| json.is_object());
        processor.unused = Unused { video_processor: video.cloned(), templates: named };
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

fn write(dir: &Path, file: &str, text: &str) -> Result<(), ProcessorError> {
    let path = dir.join(file);
    write_whole(&path, text.as_bytes()).map_err(ProcessorError::io(&path))
}
