//! JPEG files to pixels, close to libjpeg-turbo, which the reference uses.
//!
//! `jpeg-decoder` interpolates chroma as libjpeg does and stays within 3 levels of it if chroma is halved both ways.
//! The decoder inside `image` differs by up to 11 levels, and silently fills the missing part of a file with grey.

use std::io::Read;

use image::{DynamicImage, ImageBuffer, metadata::Orientation};
use jpeg_decoder::{Decoder, PixelFormat};

use super::{decode_options::DecodeOptions, orientation::JpegSegments};
use crate::error::ProcessorError;

/// Scans of a progressive file. Encoders write about ten; each takes as long as the whole image.
const MAX_SCANS: usize = 1000;

/// Bits 1 (in the escaped form that scan data has) between the last scan and the end of the image. No code consists of
/// them alone, so the decoder fails where a scan is cut and closed with an end of image. By itself it would go on with
/// bits 0 and fill the rest with grey. Behind a whole scan it passes over them.
const BEHIND_SCANS: [u8; 32] = {
    let mut bytes = [0xff; 32];
    let mut at = 1;
    while at < bytes.len() {
        bytes[at] = 0;
        at += 2;
    }
    bytes
};

pub(super) fn decode(
    bytes: &[u8],
    name: &str,
    options: &DecodeOptions,
) -> Result<(DynamicImage, Orientation), ProcessorError> {
    let damaged = |reason: String| ProcessorError::DamagedImage { name: name.into(), format: "JPEG", reason };
    let segments = JpegSegments::of(bytes);
    let (scans, end) = bytes.split_at(segments.end.unwrap_or(bytes.len()));
    let mut decoder = Decoder::new(scans.chain(&BEHIND_SCANS[..]).chain(end));
    decoder.read_info().map_err(|error| damaged(error.to_string()))?;
    let info = decoder.info().ok_or_else(|| damaged("it contains no image".into()))?;
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    options.check_pixels(name, width, height)?;
    if segments.scans > MAX_SCANS {
        return Err(damaged(format!("it has {} scans, over the limit of {MAX_SCANS}", segments.scans)));
    }
    let data = decoder.decode().map_err(|error| damaged(error.to_string()))?;
    let image = match info.pixel_format {
        PixelFormat::L8 => ImageBuffer::from_raw(width, height, data).map(DynamicImage::ImageLuma8),
        PixelFormat::RGB24 => ImageBuffer::from_raw(width, height, data).map(DynamicImage::ImageRgb8),
        PixelFormat::CMYK32 => ImageBuffer::from_raw(width, height, cmyk_to_rgb(&data)).map(DynamicImage::ImageRgb8),
        PixelFormat::L16 => {
            let wide = data.chunks_exact(2).map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
            ImageBuffer::from_raw(width, height, wide).map(DynamicImage::ImageLuma16)
        }
    };
    let image = image.ok_or_else(|| damaged("it has fewer pixels than its header says".into()))?;
    Ok((image, segments.metadata.orientation()))
}

/// `cmyk2rgb` of Pillow.
fn cmyk_to_rgb(cmyk: &[u8]) -> Vec<u8> {
    cmyk.chunks_exact(4)
        .flat_map(|ink| {
            let light = 255 - u32::from(ink[3]);
            [ink[0], ink[1], ink[2]].map(|ink| {
                let product = u32::from(ink) * light + 128;
                light.saturating_sub(((product >> 8) + product) >> 8) as u8
            })
        })
        .collect()
}
