//! PNG and WebP files to pixels, decoded by the `image` crate.
//!
//! A WebP file that is shorter than its header says is refused before it is decoded.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, metadata::Orientation};

use super::{
    decode_options::{DecodeOptions, ExifOrientation},
    orientation::{Metadata, text_metadata},
};
use crate::error::ProcessorError;

pub(super) fn decode(
    bytes: &[u8],
    format: ImageFormat,
    name: &str,
    options: &DecodeOptions,
) -> Result<(DynamicImage, Orientation), ProcessorError> {
    let refuse = |reason| ProcessorError::DamagedImage {
        name: name.into(),
        format: if format == ImageFormat::Png { "PNG" } else { "WebP" },
        reason,
    };
    let damaged = |error: ImageError| refuse(error.to_string());
    if let (ImageFormat::WebP, Some(&[a, b, c, d])) = (format, bytes.get(4..8)) {
        let promised = u64::from(u32::from_le_bytes([a, b, c, d])) + 8;
        if promised > bytes.len() as u64 {
            return Err(refuse(format!("it has {} of {promised} bytes", bytes.len())));
        }
    }
    // The library allocates rows before it tells the size, and would call a very wide image too large for its memory.
    if let (ImageFormat::Png, Some([width, height])) = (format, png_size(bytes)) {
        options.check_pixels(name, width, height)?;
    }
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    options.check_pixels(name, width, height)?;
    let metadata = match (options.exif, format) {
        (ExifOrientation::Ignore, _) => Metadata::default(),
        (ExifOrientation::Honour, ImageFormat::Png) => text_metadata(bytes).map_err(refuse)?,
        (ExifOrientation::Honour, _) => {
            Metadata { exif: decoder.exif_metadata().map_err(damaged)?, xmp: decoder.xmp_metadata().map_err(damaged)? }
        }
    };
    Ok((DynamicImage::from_decoder(decoder).map_err(damaged)?, metadata.orientation()))
}

/// Width and height in the header chunk of a PNG file, which stands first.
fn png_size(bytes: &[u8]) -> Option<[u32; 2]> {
    let header = bytes.get(12..24)?.strip_prefix(b"IHDR")?;
    let (sides, _) = header.as_chunks::<4>();
    Some([u32::from_be_bytes(*sides.first()?), u32::from_be_bytes(*sides.get(1)?)])
}
