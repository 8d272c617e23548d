//! An image file to upright RGB pixels: JPEG, PNG and WebP, told apart by content and never by name.
//!
//! Reference: `PIL.Image.open(file).convert("RGB")`, with `ImageOps.exif_transpose` before it unless told otherwise.
//! Where it differs: 16-bit channels keep their high byte also for grey (Pillow saturates those).

use std::{fs::File, io::Cursor, io::Read, path::Path, sync::Arc};

use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageError, ImageFormat, ImageReader, Pixel, metadata::Orientation,
};

use crate::{error::ProcessorError, jpeg};

/// What to do with the orientation that a camera noted in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExifOrientation {
    /// Turn the picture upright.
    #[default]
    Honour,
    /// Leave the pixels as stored, as the reference image processor does.
    Ignore,
}

/// What to do with transparency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alpha {
    /// Keep the colours as stored, as in training.
    #[default]
    Drop,
    /// Composite onto white, as recent reference processors do (`PIL.Image.alpha_composite`).
    White,
}

/// How image files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeOptions {
    /// The camera's orientation.
    pub exif: ExifOrientation,
    /// Transparency.
    pub alpha: Alpha,
    /// Largest file, in bytes.
    pub max_file_bytes: u64,
    /// Most pixels (width × height) after decoding, checked before any is decoded.
    pub max_decoded_pixels: u64,
}

impl Default for DecodeOptions {
    /// 256 MiB, and the number of pixels from which Pillow warns of a decompression bomb.
    fn default() -> Self {
        Self {
            exif: ExifOrientation::default(),
            alpha: Alpha::default(),
            max_file_bytes: 256 << 20,
            max_decoded_pixels: 89_478_485,
        }
    }
}

impl DecodeOptions {
    pub(crate) fn check_pixels(&self, name: &str, width: u32, height: u32) -> Result<(), ProcessorError> {
        let limit = self.max_decoded_pixels;
        match u64::from(width) * u64::from(height) > limit {
            true => Err(ProcessorError::TooManyPixels { name: name.into(), width, height, limit }),
            false => Ok(()),
        }
    }
}

/// A decoded image before any resizing: rows of RGB bytes. Cloning shares the pixels.
#[derive(Clone, PartialEq, Eq)]
pub struct Photo {
    name: Arc<str>,
    height: usize,
    width: usize,
    rgb: Arc<[u8]>,
}

impl std::fmt::Debug for Photo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Photo({}, {}×{})", self.name, self.height, self.width)
    }
}

impl Photo {
    /// Reads and decodes a file.
    ///
    /// # Errors
    /// [`ProcessorError::Io`] if it cannot be read, else those of [`Photo::decode`]; all name the file.
    pub fn open(path: impl AsRef<Path>, options: &DecodeOptions) -> Result<Self, ProcessorError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(ProcessorError::io(path))?;
        let mut bytes = Vec::new();
        // One byte past the limit tells an oversized file without reading all of it, pipes included.
        file.take(options.max_file_bytes.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(ProcessorError::io(path))?;
        if bytes.len() as u64 > options.max_file_bytes {
            let size = std::fs::metadata(path).map_or(bytes.len() as u64, |data| data.len());
            return Err(too_large(&path.display().to_string(), size.max(bytes.len() as u64), options));
        }
        Self::decode(&bytes, &path.display().to_string(), options)
    }

    /// Decodes a file held in memory; `name` stands for it in errors.
    ///
    /// # Errors
    /// [`ProcessorError::FileTooLarge`], [`ProcessorError::NotAnImage`], [`ProcessorError::TooManyPixels`] and, for a
    /// file that is cut short anywhere or broken, [`ProcessorError::DamagedImage`].
    pub fn decode(bytes: &[u8], name: &str, options: &DecodeOptions) -> Result<Self, ProcessorError> {
        if bytes.len() as u64 > options.max_file_bytes {
            return Err(too_large(name, bytes.len() as u64, options));
        }
        let (mut image, orientation) = match supported_format(bytes, name)? {
            ImageFormat::Jpeg => jpeg::decode(bytes, name, options)?,
            format => decode_png_or_webp(bytes, format, name, options)?,
        };
        if options.exif == ExifOrientation::Honour {
            image.apply_orientation(orientation);
        }
        let (height, width) = (image.height() as usize, image.width() as usize);
        Self::from_rgb(name, height, width, to_rgb(&image, options.alpha))
    }

    /// An image from its pixels, row by row, three bytes each.
    ///
    /// # Errors
    /// [`ProcessorError::Pixels`] if a side is 0 or `rgb` does not hold height × width × 3 bytes.
    pub fn from_rgb(name: &str, height: usize, width: usize, rgb: Vec<u8>) -> Result<Self, ProcessorError> {
        if height == 0 || width == 0 || Some(rgb.len()) != height.checked_mul(width).and_then(|n| n.checked_mul(3)) {
            return Err(ProcessorError::Pixels {
                name: name.into(),
                reason: format!("{} bytes of RGB are not an image of {height}×{width} (height×width)", rgb.len()),
            });
        }
        Ok(Self { name: name.into(), height, width, rgb: rgb.into() })
    }

    /// The file or the name given, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Rows of pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The pixels, `[height, width, 3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The part that starts at (`top`, `left`).
    ///
    /// # Errors
    /// [`ProcessorError::Pixels`] if it is empty or reaches over the border.
    pub fn crop(&self, top: usize, left: usize, height: usize, width: usize) -> Result<Self, ProcessorError> {
        let inside = |start: usize, len: usize, side: usize| start.checked_add(len).is_some_and(|end| end <= side);
        if !inside(top, height, self.height) || !inside(left, width, self.width) {
            return Err(ProcessorError::Pixels {
                name: self.name.to_string(),
                reason: format!(
                    "a crop of {height}×{width} at ({top}, {left}) reaches over the border of {}×{}",
                    self.height, self.width
                ),
            });
        }
        let rgb = (top..top + height)
            .flat_map(|y| &self.rgb[(y * self.width + left) * 3..(y * self.width + left + width) * 3])
            .copied()
            .collect();
        Self::from_rgb(&self.name, height, width, rgb)
    }

    /// The mirror image, left and right exchanged.
    pub fn flip_horizontal(&self) -> Self {
        let rgb = self
            .rgb
            .chunks_exact(self.width * 3)
            .flat_map(|row| row.chunks_exact(3).rev().flatten())
            .copied()
            .collect();
        Self { rgb, ..self.clone() }
    }
}

fn too_large(name: &str, bytes: u64, options: &DecodeOptions) -> ProcessorError {
    ProcessorError::FileTooLarge { name: name.into(), bytes, limit: options.max_file_bytes }
}

fn supported_format(bytes: &[u8], name: &str) -> Result<ImageFormat, ProcessorError> {
    let refuse = |reason: String| Err(ProcessorError::NotAnImage { name: name.into(), reason });
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => Ok(format),
        Ok(other) => refuse(format!("{other:?} images are not supported")),
        Err(_) if bytes.is_empty() => refuse("the file is empty".into()),
        Err(_) => refuse("not an image".into()),
    }
}

fn decode_png_or_webp(
    bytes: &[u8],
    format: ImageFormat,
    name: &str,
    options: &DecodeOptions,
) -> Result<(DynamicImage, Orientation), ProcessorError> {
    let refuse = |reason: String| ProcessorError::DamagedImage {
        name: name.into(),
        format: if format == ImageFormat::Png { "PNG" } else { "WebP" },
        reason,
    };
    let damaged = |error: ImageError| refuse(error.to_string());
    if let (ImageFormat::WebP, Some(&[a, b, c, d])) = (format, bytes.get(4..8)) {
        let promised = u64::from(u32::from_le_bytes([a, b, c, d])) + 8;
        if promised > bytes.len() as u64 {
            return Err(refuse(format!("{} of {promised} bytes are there", bytes.len())));
        }
    }
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    options.check_pixels(name, width, height)?;
    let orientation = decoder.orientation().map_err(damaged)?;
    Ok((DynamicImage::from_decoder(decoder).map_err(damaged)?, orientation))
}

fn to_rgb(image: &DynamicImage, alpha: Alpha) -> Vec<u8> {
    let high = |value: u16| (value >> 8) as u8;
    match image {
        DynamicImage::ImageLuma8(grey) => flatten(grey, alpha, |p| [p[0], p[0], p[0], 255]),
        DynamicImage::ImageLumaA8(grey) => flatten(grey, alpha, |p| [p[0], p[0], p[0], p[1]]),
        DynamicImage::ImageRgb8(rgb) => rgb.as_raw().clone(),
        DynamicImage::ImageRgba8(rgba) => flatten(rgba, alpha, |p| p.0),
        DynamicImage::ImageLuma16(grey) => flatten(grey, alpha, |p| [high(p[0]), high(p[0]), high(p[0]), 255]),
        DynamicImage::ImageLumaA16(grey) => flatten(grey, alpha, |p| [high(p[0]), high(p[0]), high(p[0]), high(p[1])]),
        DynamicImage::ImageRgb16(rgb) => flatten(rgb, alpha, |p| [high(p[0]), high(p[1]), high(p[2]), 255]),
        DynamicImage::ImageRgba16(rgba) => flatten(rgba, alpha, |p| p.0.map(high)),
        other => flatten(&other.to_rgba8(), alpha, |p| p.0),
    }
}

fn flatten<P: Pixel>(image: &ImageBuffer<P, Vec<P::Subpixel>>, alpha: Alpha, rgba: impl Fn(&P) -> [u8; 4]) -> Vec<u8> {
    image
        .pixels()
        .flat_map(|pixel| {
            let [r, g, b, a] = rgba(pixel);
            match alpha {
                Alpha::Drop => [r, g, b],
                Alpha::White => [r, g, b].map(|value| over_white(value, a)),
            }
        })
        .collect()
}

/// `ImagingAlphaComposite` of Pillow over opaque white, with its seven extra bits and its division by 255.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    let sum = value * alpha * 128 + 255 * (255 - alpha) * 128 + (0x80 << 7);
    ((((sum >> 8) + sum) >> 8) >> 7) as u8
}
