//! Conversations and photographs to sequences of token ids with their patches.
//!
//! Reference: `Qwen2_5_VLProcessor` of transformers: the chat template, then one placeholder for each image token, then
//! the tokenizer without added tokens. `processor_files.rs` reads and writes the files of a checkpoint.

use std::collections::BTreeMap;

use fieldmark_model::{GridThw, Qwen25VlConfig};
use serde_json::Value;

use crate::{
    error::ProcessorError,
    expand::expand_images,
    image::{ImageProcessor, PatchedImage, Photo},
    sequence::Sequence,
    text::{
        Tokenizer,
        chat::{ChatOptions, ChatTemplate, Message},
    },
};

/// Options for turning a conversation into a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessOptions {
    /// Options of the chat template.
    pub chat: ChatOptions,
    /// Largest number of tokens. With `None`, only [`collate`](crate::collate) checks the length, against the model's
    /// context.
    pub max_tokens: Option<usize>,
}

impl ProcessOptions {
    /// Options for generation: the sequence ends with the opening of the assistant's turn.
    pub fn prompt() -> Self {
        Self { chat: ChatOptions { add_generation_prompt: true, add_vision_id: false }, max_tokens: None }
    }

    /// Sets the largest number of tokens.
    pub fn with_max_tokens(mut self, limit: usize) -> Self {
        self.max_tokens = Some(limit);
        self
    }
}

/// The tokenizer, image processor and chat template of one checkpoint.
#[derive(Debug, Clone)]
pub struct Processor {
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Photographs to patches.
    pub images: ImageProcessor,
    /// Conversations to text.
    pub template: ChatTemplate,
    pub(crate) unused: Unused,
}

/// What a checkpoint has that is not used here, but belongs to its files when they are written again.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unused {
    /// The settings for videos.
    pub(crate) video_processor: Option<Value>,
    /// The chat templates that have a name, such as `tool_use`.
    pub(crate) templates: BTreeMap<String, String>,
}

impl Processor {
    /// Creates a processor from its parts.
    pub fn new(tokenizer: Tokenizer, images: ImageProcessor, template: ChatTemplate) -> Self {
        Self { tokenizer, images, template, unused: Unused::default() }
    }

    /// Changes the image processor, for example to set other pixel limits than the checkpoint's.
    pub fn with_images(mut self, change: impl FnOnce(ImageProcessor) -> ImageProcessor) -> Self {
        self.images = change(self.images);
        self
    }

    /// Encodes a conversation and its photographs, which are in the order of their placeholders. Errors name `sample`.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Size`] if the shape of a photograph is too extreme, [`ProcessorError::Placeholders`]
    /// unless there is one placeholder for each photograph, [`ProcessorError::TooLong`], [`ProcessorError::Template`]
    /// or [`ProcessorError::Tokenizer`].
    pub fn process(
        &self,
        sample: &str,
        messages: &[Message],
        photos: &[Photo],
        options: ProcessOptions,
    ) -> Result<Sequence, ProcessorError> {
        let images = photos.iter().map(|photo| self.images.process(photo)).collect::<Result<Vec<_>, _>>()?;
        self.encode(sample, messages, images, options)
    }

    /// Encodes a conversation and images that are already cut into patches. Errors name `sample`.
    ///
    /// # Errors
    /// Returns the errors of [`Processor::process`], except [`ProcessorError::Size`].
    pub fn encode(
        &self,
        sample: &str,
        messages: &[Message],
        images: Vec<PatchedImage>,
        options: ProcessOptions,
    ) -> Result<Sequence, ProcessorError> {
        let text = self.template.render(messages, options.chat)?;
        self.encode_text(sample, &text, images, options.max_tokens)
    }

    /// Encodes rendered text that has one placeholder for each image. Errors name `sample`.
    ///
    /// # Errors
    /// Returns the errors of [`Processor::encode`].
    pub fn encode_text(
        &self,
        sample: &str,
        text: &str,
        images: Vec<PatchedImage>,
        max_tokens: Option<usize>,
    ) -> Result<Sequence, ProcessorError> {
        let grids: Vec<GridThw> = images.iter().map(|image| image.grid).collect();
        let text = expand_images(sample, text, &grids, self.images.config().merge_size)?;
        let sequence = Sequence { name: sample.into(), ids: self.tokenizer.encode(&text)?, images };
        sequence.check_length(max_tokens.unwrap_or(usize::MAX), self.tokenizer.vision_tokens().image)?;
        Ok(sequence)
    }

    /// Checks that a model takes this processor's patches, vision tokens and vocabulary.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Config`], which calls the file `path` and names the key of `config.json` that
    /// disagrees.
    pub fn check(&self, config: &Qwen25VlConfig, path: impl Into<std::path::PathBuf>) -> Result<(), ProcessorError> {
        let (key, reason) = if !self.images.config().fits(&config.vision) {
            let ours = self.images.config();
            let reason = format!(
                "disagrees with the image processor (preprocessor_config.json), whose patches are {0}×{0} pixels of {1} frames, merged \
                 {2}×{2}; use the files of one checkpoint",
                ours.patch_size, ours.temporal_patch_size, ours.merge_size
            );
            ("vision_config", reason)
        } else if config.vision_tokens != self.tokenizer.vision_tokens() {
            let reason = format!(
                "and the other vision tokens are {:?}, but the tokenizer's are {:?} (image, video, start, end); use \
                 the tokenizer of the checkpoint",
                config.vision_tokens.all(),
                self.tokenizer.vision_tokens().all()
            );
            ("image_token_id", reason)
        } else if self.tokenizer.vocab_size() > config.text.vocab_size {
            let reason = format!(
                "is {}, but the tokenizer has {} tokens; use the tokenizer of the checkpoint",
                config.text.vocab_size,
                self.tokenizer.vocab_size()
            );
            ("vocab_size", reason)
        } else {
            return Ok(());
        };
        Err(ProcessorError::Config { path: path.into(), key: key.into(), reason })
    }
}
