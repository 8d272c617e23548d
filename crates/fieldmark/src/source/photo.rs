//! Decodes the image of a row: a file, or bytes in the row.

use fieldmark_data::RowImage;
use fieldmark_processor::{DecodeOptions, Photo, ProcessorError};

/// Decodes an image whose path is that of its file.
pub fn open(image: &RowImage, options: &DecodeOptions) -> Result<Photo, ProcessorError> {
    match image {
        RowImage::Path(file) => Photo::open(file, options),
        RowImage::Bytes(image) => Photo::decode(&image.bytes, &image.name, options),
    }
}
