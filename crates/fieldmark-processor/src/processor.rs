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
    image::{ImageProcessor, PatchedImage, Photo, PixelLimits},
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
    /// Largest number of tokens. With `None`, the length is checked against the model's context only.
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
    /// Longest sequence of the model in tokens, images included (`max_position_embeddings`); `None` if it is not known.
    pub context: Option<usize>,
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
    /// Creates a processor from its parts, for a model of unknown context.
    pub fn new(tokenizer: Tokenizer, images: ImageProcessor, template: ChatTemplate) -> Self {
        Self { tokenizer, images, template, context: None, unused: Unused::default() }
    }

    /// Sets the longest sequence of the model in tokens.
    pub fn with_context(mut self, tokens: usize) -> Self {
        self.context = Some(tokens);
        self
    }

    /// Changes the image processor, for example to set other pixel limits than the checkpoint's.
    pub fn with_images(mut self, change: impl FnOnce(ImageProcessor) -> ImageProcessor) -> Self {
        self.images = change(self.images);
        self
    }

    /// Changes the pixel limits. A limit that is `None` stays the checkpoint's, moved as far as the other one needs.
    ///
    /// # Errors
    /// Returns [`ProcessorError::PixelLimit`] if no image can meet the limits.
    pub fn with_pixel_limits(
        self,
        min_pixels: Option<usize>,
        max_pixels: Option<usize>,
    ) -> Result<Self, ProcessorError> {
        let own = self.images.config().limits;
        let limits = PixelLimits {
            min_pixels: min_pixels.unwrap_or(own.min_pixels.min(max_pixels.unwrap_or(usize::MAX))),
            max_pixels: max_pixels.unwrap_or(own.max_pixels.max(min_pixels.unwrap_or(0))),
        };
        limits.check()?;
        if let Some(pixels) = min_pixels {
            self.check_least_tokens(pixels)?;
        }
        Ok(self.with_images(|images| images.with_limits(limits)))
    }

    /// Checks that an image of `min_pixels` pixels fits the model's context.
    ///
    /// # Errors
    /// Returns [`ProcessorError::PixelLimit`] for `min_pixels` if it does not.
    pub fn check_least_tokens(&self, min_pixels: usize) -> Result<(), ProcessorError> {
        let tokens = min_pixels / self.images.config().factor().pow(2).max(1);
        match self.context {
            Some(context) if tokens > context => Err(ProcessorError::PixelLimit {
                key: "min_pixels",
                value: min_pixels,
                reason: format!(
                    "enlarges every image to {tokens} tokens, but the model's context has {context}; lower it"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Cuts photographs into patches. Their tokens are counted first, so that photographs which do not fit are refused
    /// before one of them is enlarged. Errors name `sample`.
    ///
    /// # Errors
    /// Returns the errors of `photos`, [`ProcessorError::Size`] if the shape of a photograph is too extreme, and
    /// [`ProcessorError::TooLong`] if they have more tokens than `max_tokens` or the model's context.
    pub fn patch(
        &self,
        sample: &str,
        photos: impl IntoIterator<Item = Result<Photo, ProcessorError>>,
        max_tokens: Option<usize>,
    ) -> Result<Vec<PatchedImage>, ProcessorError> {
        let mut before = 0;
        photos.into_iter().map(|photo| self.patch_after(sample, &photo?, &mut before, max_tokens)).collect()
    }

    /// Cuts one photograph into patches, as [`Self::patch`] does.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Size`] or [`ProcessorError::TooLong`].
    pub fn patch_one(
        &self,
        sample: &str,
        photo: &Photo,
        max_tokens: Option<usize>,
    ) -> Result<PatchedImage, ProcessorError> {
        self.patch_after(sample, photo, &mut 0, max_tokens)
    }

    /// Cuts a photograph into patches; `tokens` counts those of the photographs so far.
    fn patch_after(
        &self,
        sample: &str,
        photo: &Photo,
        tokens: &mut usize,
        max_tokens: Option<usize>,
    ) -> Result<PatchedImage, ProcessorError> {
        let (grid, limit) = (self.images.grid_of(photo)?, self.limit(max_tokens));
        *tokens += self.images.config().tokens(grid);
        if *tokens > limit {
            let (sample, tokens) = (sample.into(), *tokens);
            return Err(ProcessorError::TooLong { sample, tokens, image_tokens: tokens, limit });
        }
        self.images.process(photo)
    }

    /// The largest number of tokens: `max_tokens`, or the model's context if that is less.
    pub(crate) fn limit(&self, max_tokens: Option<usize>) -> usize {
        max_tokens.unwrap_or(usize::MAX).min(self.context.unwrap_or(usize::MAX))
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
        let images = self.patch(sample, photos.iter().cloned().map(Ok), options.max_tokens)?;
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
        sequence.check_length(self.limit(max_tokens), self.tokenizer.vision_tokens().image)?;
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
