//! What can go wrong on the way from files and conversations to the inputs of a model.

use std::path::PathBuf;

use fieldmark_model::ModelError;

/// An error of this crate. Its text names the file, key or sample and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// A file is missing, or cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// An image file has too many bytes.
    #[error(
        "{name}: {bytes} bytes, over the limit of {limit} for an image file; shrink the image, or raise the limit: \
             data.max_file_bytes in a recipe, else --max-file-bytes"
    )]
    FileTooLarge {
        /// The file.
        name: String,
        /// Size of the file in bytes.
        bytes: u64,
        /// Largest size in bytes.
        limit: u64,
    },
    /// An image has too many pixels.
    #[error(
        "{name}: {width}×{height} pixels, over the limit of {limit} pixels; shrink the image, or raise the limit: \
             data.max_decoded_pixels in a recipe, else --max-decoded-pixels"
    )]
    TooManyPixels {
        /// The file.
        name: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Largest number of pixels.
        limit: u64,
    },
    /// A file is not an image of a supported format.
    #[error("{name}: {reason}; give a JPEG, PNG or WebP file")]
    NotAnImage {
        /// The file.
        name: String,
        /// What the file is.
        reason: String,
    },
    /// A file has a known format that is not read.
    #[error("{name}: this is a {format} file, which is not read; convert it to JPEG or PNG")]
    OtherFormat {
        /// The file.
        name: String,
        /// The format according to the first bytes.
        format: &'static str,
    },
    /// An image file is cut short or damaged.
    #[error("{name}: this {format} file is cut short or damaged ({reason}); replace it")]
    DamagedImage {
        /// The file.
        name: String,
        /// The format according to the first bytes.
        format: &'static str,
        /// The decoder's error.
        reason: String,
    },
    /// Pixels do not match the size given, or a crop does not fit into its image.
    #[error("{name}: {reason}")]
    Pixels {
        /// The image.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// An image cannot be resized to multiples of the patch size.
    #[error("{name}: cannot resize {height}×{width} (height×width): {reason}")]
    Size {
        /// The image.
        name: String,
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// Why not.
        reason: String,
    },
    /// A pixel limit that no image can meet.
    #[error("`{key}` = {value}: {reason}")]
    PixelLimit {
        /// `min_pixels` or `max_pixels`.
        key: &'static str,
        /// Its value.
        value: usize,
        /// What is wrong.
        reason: String,
    },
    /// A value in a JSON file is missing or wrong, or the file is not valid.
    #[error("{path}: `{key}` {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, or the file's name if the whole file is wrong.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The tokenizer cannot be loaded, trained or used.
    #[error("{name}: tokenizer: {reason}")]
    Tokenizer {
        /// The tokenizer's file.
        name: String,
        /// What is wrong, or the library's error.
        reason: String,
    },
    /// The tokenizer does not have a token that the model needs.
    #[error("{name}: the tokenizer has no token `{token}`; use the tokenizer that belongs to the checkpoint")]
    MissingToken {
        /// The tokenizer's file.
        name: String,
        /// The token.
        token: String,
    },
    /// A chat template is not valid, or refuses the conversation.
    #[error("chat template: {0}")]
    Template(String),
    /// A conversation has more or fewer image placeholders than images.
    #[error(
        "{sample}: {placeholders} image placeholder(s) in the text, but {images} image(s) given; give one image \
         for each placeholder"
    )]
    Placeholders {
        /// The sample.
        sample: String,
        /// Placeholders in the text.
        placeholders: usize,
        /// Images given.
        images: usize,
    },
    /// The tokens of a sequence do not fit its images or the model.
    #[error("{sample}: {reason}")]
    ImageTokens {
        /// The sample.
        sample: String,
        /// What does not fit.
        reason: String,
    },
    /// A sequence is too long. It is never cut, because the cut could go through an image.
    #[error(
        "{sample}: {tokens} tokens ({image_tokens} of them for images), over the limit of {limit}; shorten the text or \
         lower max_pixels and min_pixels"
    )]
    TooLong {
        /// The sample.
        sample: String,
        /// Number of tokens.
        tokens: usize,
        /// How many of the tokens stand for image features.
        image_tokens: usize,
        /// Largest number of tokens.
        limit: usize,
    },
    /// A batch has no sequence, or a sequence has no token.
    #[error("a batch needs at least one sequence, and each sequence at least one token")]
    Empty,
    /// The model refused the batch or its files.
    #[error(transparent)]
    Model(ModelError),
}

impl From<ModelError> for ProcessorError {
    /// A file that cannot be read is the same error in both crates.
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Io { path, source } => Self::Io { path, source },
            other => Self::Model(other),
        }
    }
}

impl ProcessorError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
