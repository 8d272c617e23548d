//! Turns photographs and conversations into the inputs of a Qwen2.5-VL model.
//!
//! [`ImageProcessor`] resizes a [`Photo`] within pixel limits and cuts it into patches. [`Processor`] renders a
//! conversation, expands its image placeholders and encodes it. [`collate`] pads sequences into a batch. Everything
//! stays in plain vectors on the CPU until then. [`SiglipEmbedder`] turns texts into vectors, to compare answers.
//!
//! ```no_run
//! use fieldmark_processor::{DecodeOptions, Message, Photo, ProcessOptions, Processor};
//!
//! let processor = Processor::from_dir("checkpoint")?;
//! let photo = Photo::open("pepper.jpg", &DecodeOptions::default())?;
//! let question = [Message::user_with_image("Which pepper is this?")];
//! let sequence = processor.process("pepper.jpg", &question, &[photo], ProcessOptions::prompt())?;
//! # Ok::<(), fieldmark_processor::ProcessorError>(())
//! ```

mod batch;
mod embedding;
mod error;
mod expand;
mod image;
mod processor;
mod processor_files;
mod processor_templates;
mod remarks;
mod sequence;
mod supervised;
mod text;

pub use crate::image::{
    Alpha, DecodeOptions, ExifOrientation, ImageProcessor, ImageProcessorConfig, PatchedImage, Photo, PixelLimits,
    PreResize, ResizedPhoto, Size, SizeRule, area_resize, smart_resize,
};
pub use batch::{collate, pack};
pub use embedding::{SiglipEmbedder, SiglipTokenizer, TextEmbedder, cosine, relative_similarity};
pub use error::ProcessorError;
pub use expand::expand_images;
pub use fieldmark_model::Padding;
pub use processor::{ProcessOptions, Processor};
pub use remarks::Remarks;
pub use sequence::Sequence;
pub use supervised::{SupervisedSequence, TargetEnd};
pub use text::{
    SpecialTokens, TextStream, Tokenizer,
    chat::{self, ChatOptions, ChatTemplate, Content, ContentPart, Message, QWEN2_5_VL_TEMPLATE, Role},
    special, train_tokenizer,
};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
