//! Conversations and photographs to sequences of token ids with their patches.
//!
//! Reference: `Qwen2_5_VLProcessor` of transformers: the chat template, then one placeholder for each image token, then
//! the tokenizer without added tokens. Reading and writing the files of a checkpoint is in `processor_files.rs`.

use fieldmark_model::{GridThw, Qwen25VlConfig};

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

/// How a conversation becomes a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessOptions {
    /// What the chat template is asked for.
    pub chat: ChatOptions,
    /// Most tokens; `None` leaves it to the model's context when the batch is made.
    pub max_tokens: Option<usize>,
}

impl ProcessOptions {
    /// For generation: the sequence ends with the opening of the assistant's turn.
    pub fn prompt() -> Self {
        Self { chat: ChatOptions { add_generation_prompt: true, add_vision_id: false }, max_tokens: None }
    }

    /// The same with a limit on the length.
    pub fn with_max_tokens(mut self, limit: usize) -> Self {
        self.max_tokens = Some(limit);
        self
    }
}

/// Tokenizer, image processor and chat template of one checkpoint.
#[derive(Debug, Clone)]
pub struct Processor {
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// Photographs to patches.
    pub images: ImageProcessor,
    /// Conversations to text.
    pub template: ChatTemplate,
}

impl Processor {
    /// A processor from its parts.
    pub fn new(tokenizer: Tokenizer, images: ImageProcessor, template: ChatTemplate) -> Self {
        Self { tokenizer, images, template }
    }

    /// The same with another image processor, for other pixel limits than the checkpoint's.
    pub fn with_images(mut self, change: impl FnOnce(ImageProcessor) -> ImageProcessor) -> Self {
        self.images = change(self.images);
        self
    }

    /// A conversation and the photographs in it, in order; `sample` names it in errors.
    ///
    /// # Errors
    /// [`ProcessorError::Size`] for a photograph of extreme shape, [`ProcessorError::Placeholders`] unless there is one
    /// placeholder for each photograph, [`ProcessorError::TooLong`], [`ProcessorError::Template`] and
    /// [`ProcessorError::Tokenizer`].
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

    /// A conversation and images that were cut into patches before, in order; `sample` names it in errors.
    ///
    /// # Errors
    /// Those of [`Processor::process`], sizes excepted.
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

    /// Rendered text with one placeholder for each image; `sample` names it in errors.
    ///
    /// # Errors
    /// Those of [`Processor::encode`].
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

    /// Checks that a model takes what this processor makes: patches, vision tokens, vocabulary.
    ///
    /// # Errors
    /// [`ProcessorError::Config`] names the key of `config.json` that disagrees; `path` stands for the file.
    pub fn check(&self, config: &Qwen25VlConfig, path: impl Into<std::path::PathBuf>) -> Result<(), ProcessorError> {
        let (key, reason) = if !self.images.config().fits(&config.vision) {
            let ours = self.images.config();
            let reason = format!(
                "disagrees with preprocessor_config.json: patches there are {}×{} pixels, {} frames, merged in {}s",
                ours.patch_size, ours.patch_size, ours.temporal_patch_size, ours.merge_size
            );
            ("vision_config", reason)
        } else if config.vision_tokens != self.tokenizer.vision_tokens() {
            let reason = format!(
                "and the other vision tokens are {:?}, but the tokenizer's are {:?} (image, video, start, end)",
                config.vision_tokens.all(),
                self.tokenizer.vision_tokens().all()
            );
            ("image_token_id", reason)
        } else if self.tokenizer.vocab_size() > config.text.vocab_size {
            let reason =
                format!("is {}, but the tokenizer has {} tokens", config.text.vocab_size, self.tokenizer.vocab_size());
            ("vocab_size", reason)
        } else {
            return Ok(());
        };
        Err(ProcessorError::Config { path: path.into(), key: key.into(), reason })
    }
}
