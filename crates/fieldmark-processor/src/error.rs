//! What can go wrong between a file or a conversation and the inputs of the model.

use std::path::PathBuf;

use fieldmark_model::ModelError;

/// Every error names the file, key or sample it is about and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// A file is missing or cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An image file is larger than allowed.
    #[error("{name}: {bytes} bytes, over the limit of {limit} for an image file; shrink it or raise the limit")]
    FileTooLarge {
        /// The file.
        name: String,
        /// Its size.
        bytes: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// An image would take too much memory once decoded.
    #[error("{name}: {width}×{height} pixels, over the limit of {limit} pixels in all; shrink it or raise the limit")]
    TooManyPixels {
        /// The file.
        name: String,
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Pixels allowed.
        limit: u64,
    },
    /// The content of a file is no image of a supported format.
    #[error("{name}: {reason}; give a JPEG, PNG or WebP file")]
    NotAnImage {
        /// The file.
        name: String,
        /// What it is instead.
        reason: String,
    },
    /// An image file is cut short or damaged inside.
    #[error("{name}: this {format} file is cut short or damaged ({reason}); fetch it again")]
    DamagedImage {
        /// The file.
        name: String,
        /// The format that its first bytes announce.
        format: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// Pixels given in memory, or a crop, do not fit the size given.
    #[error("{name}: {reason}")]
    Pixels {
        /// The image.
        name: String,
        /// How they disagree.
        reason: String,
    },
    /// The sides of an image cannot be brought to multiples of the patch size.
    #[error("{name}: cannot resize {height}×{width} (height×width): {reason}")]
    Size {
        /// The image.
        name: String,
        /// Rows.
        height: usize,
        /// Pixels in a row.
        width: usize,
        /// Why.
        reason: String,
    },
    /// A JSON file is not what it should be.
    #[error("{path}: `{key}` {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, or the kind of file where there is no single one.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The tokenizer cannot be loaded, trained or used.
    #[error("{name}: tokenizer: {reason}")]
    Tokenizer {
        /// Its file.
        name: String,
        /// What the library said.
        reason: String,
    },
    /// The tokenizer lacks a token that the model needs.
    #[error("{name}: the tokenizer has no token `{token}`; use the tokenizer that belongs to the checkpoint")]
    MissingToken {
        /// The tokenizer's file.
        name: String,
        /// The token.
        token: String,
    },
    /// A chat template is not valid, or refused the conversation.
    #[error("chat template: {0}")]
    Template(String),
    /// The image placeholders of a conversation and the images given do not agree.
    #[error("{sample}: {placeholders} image placeholder(s) in the text, but {images} image(s) given; make them equal")]
    Placeholders {
        /// Which sample.
        sample: String,
        /// Placeholders in the text.
        placeholders: usize,
        /// Images given.
        images: usize,
    },
    /// The image tokens of a finished sequence and the features of its images do not agree.
    #[error("{sample}: {reason}")]
    ImageTokens {
        /// Which sample.
        sample: String,
        /// How they disagree.
        reason: String,
    },
    /// A sequence does not fit; it is refused, since cutting it could cut an image apart.
    #[error(
        "{sample}: {tokens} tokens, {image_tokens} of them of images, over the limit of {limit}; shorten the text or \
         lower max_pixels"
    )]
    TooLong {
        /// Which sample.
        sample: String,
        /// Its length.
        tokens: usize,
        /// Tokens that stand for image features.
        image_tokens: usize,
        /// Tokens allowed.
        limit: usize,
    },
    /// A batch was asked for without a single sequence.
    #[error("a batch needs at least one sequence, and every sequence at least one token")]
    Empty,
    /// The model's own check refused the batch.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl ProcessorError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
