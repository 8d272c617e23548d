//! Pixels and text to the inputs of a Qwen2.5-VL model; texts to vectors that compare answers ([`SiglipEmbedder`]).
//!
//! A [`Photo`] is decoded, resized within pixel limits and cut into patches ([`ImageProcessor`]); a conversation is
//! rendered, its image placeholders expanded, and encoded ([`Processor`]); [`collate`] pads sequences into a batch.
//! All of it happens in plain vectors on the CPU until the batch is put on a device.
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

#![allow(non_snake_case)]

mod batch;
pub mod chat;
mod embedding;
mod error;
mod expand;
mod image_config;
mod image_processor;
mod jpeg;
mod photo;
mod processor;
mod processor_files;
mod resize;
mod sizes;
mod supervised;
mod text_stream;
mod tokenizer;
mod tokenizer_train;

pub use batch::collate;
pub use chat::{ChatOptions, ChatTemplate, Content, Message, Part, QWEN2_5_VL_TEMPLATE, Role};
pub use embedding::{SiglipEmbedder, SiglipTokenizer, TextEmbedder, cosine, relative_similarity};
pub use error::ProcessorError;
pub use expand::expand_images;
pub use fieldmark_model::Padding;
pub use image_config::ImageProcessorConfig;
pub use image_processor::{ImageProcessor, PatchedImage, ResizedPhoto};
pub use photo::{Alpha, DecodeOptions, ExifOrientation, Photo};
pub use processor::{ProcessOptions, Processor, Sequence};
pub use sizes::{PixelLimits, PreResize, Size, SizeRule, area_resize, smart_resize};
pub use supervised::{SupervisedSequence, TargetEnd};
pub use text_stream::TextStream;
pub use tokenizer::{SpecialTokens, Tokenizer, special};
pub use tokenizer_train::train_tokenizer;
