//! The processor's files in a checkpoint folder, read and written as transformers does.
//!
//! `tokenizer.json` (and `tokenizer_config.json`), `preprocessor_config.json`, and the chat template from
//! `chat_template.jinja` or `chat_template.json`. The template in `tokenizer_config.json` is for text alone: not used.

use std::path::Path;

use fieldmark_model::{Qwen25VlConfig, files::write_whole};
use serde_json::{Value, json};

use crate::{
    error::ProcessorError,
    image::{ImageProcessor, ImageProcessorConfig},
    processor::Processor,
    text::{SpecialTokens, Tokenizer, chat::ChatTemplate},
};

impl Processor {
    /// Reads a checkpoint folder. Without a template file, the template of Qwen2.5-VL is used. If the folder has a
    /// `config.json`, it must agree with the other files.
    ///
    /// # Errors
    /// Returns an error if a file is missing, is damaged or disagrees with another. All but
    /// [`ProcessorError::Template`] name the file.
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self, ProcessorError> {
        let dir = dir.as_ref();
        let images = ImageProcessorConfig::from_file(dir.join("preprocessor_config.json"))?;
        let processor = Self::new(
            Tokenizer::from_file(dir.join("tokenizer.json"))?,
            ImageProcessor::new(images),
            read_template(dir)?,
        );
        let config = dir.join("config.json");
        if config.exists() {
            let model = Qwen25VlConfig::from_json_file(&config)?;
            processor.check(&model, config)?;
            return Ok(processor.with_context(model.text.max_position_embeddings));
        }
        Ok(processor)
    }

    /// Writes the files from which [`Processor::from_dir`] and transformers load this processor. Each file appears
    /// whole or not at all.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Io`] or [`ProcessorError::Tokenizer`].
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), ProcessorError> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(ProcessorError::io(dir))?;
        let images = self.images.config();
        let name = |id| self.tokenizer.decode(&[id], SpecialTokens::Keep);
        let preprocessor = json!({
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
            "min_pixels": images.limits.min_pixels,
            "max_pixels": images.limits.max_pixels,
            "patch_size": images.patch_size,
            "temporal_patch_size": images.temporal_patch_size,
            "merge_size": images.merge_size,
            "rescale_factor": images.rescale_factor,
            "image_mean": images.image_mean,
            "image_std": images.image_std,
        });
        let tokenizer = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "processor_class": "Qwen2_5_VLProcessor",
            "add_bos_token": false,
            "clean_up_tokenization_spaces": false,
            "eos_token": name(self.tokenizer.eos())?,
            "pad_token": name(self.tokenizer.pad())?,
        });
        let template = json!({ "chat_template": self.template.source() });
        write(dir, "tokenizer.json", &self.tokenizer.to_json()?)?;
        for (file, value) in [
            ("preprocessor_config.json", preprocessor),
            ("tokenizer_config.json", tokenizer),
            ("chat_template.json", template),
        ] {
            write(dir, file, &format!("{value:#}\n"))?;
        }
        Ok(())
    }
}

fn read_template(dir: &Path) -> Result<ChatTemplate, ProcessorError> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(ProcessorError::io(path));
    let (jinja, json) = (dir.join("chat_template.jinja"), dir.join("chat_template.json"));
    if jinja.exists() {
        return ChatTemplate::new(read(&jinja)?);
    }
    if !json.exists() {
        return ChatTemplate::qwen2_5_vl();
    }
    let refuse = |reason: String| ProcessorError::Config { path: json.clone(), key: "chat_template".into(), reason };
    let value: Value = serde_json::from_str(&read(&json)?).map_err(|error| refuse(format!("is not valid: {error}")))?;
    match value.get("chat_template").and_then(Value::as_str) {
        Some(source) => ChatTemplate::new(source),
        None => Err(refuse("must be a string".into())),
    }
}

fn write(dir: &Path, file: &str, text: &str) -> Result<(), ProcessorError> {
    let path = dir.join(file);
    write_whole(&path, text.as_bytes()).map_err(ProcessorError::io(&path))
}
