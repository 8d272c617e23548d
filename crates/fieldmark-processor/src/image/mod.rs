//! Photographs to patches: decode a file, resize it within pixel limits, normalise, cut.

mod config;
mod config_keys;
mod decode_options;
mod jpeg;
mod orientation;
mod other_formats;
mod photo;
mod png_webp;
mod processor;
mod resize;
mod rgb;
mod sizes;

pub use config::ImageProcessorConfig;
pub use decode_options::{Alpha, DecodeOptions, ExifOrientation};
pub use photo::Photo;
pub use processor::{ImageProcessor, PatchedImage, ResizedPhoto};
pub use sizes::{PixelLimits, PreResize, Size, SizeRule, area_resize, smart_resize};
