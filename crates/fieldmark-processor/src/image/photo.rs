//! An image file to upright RGB pixels: JPEG, PNG and WebP, told apart by content and never by name.
//!
//! Reference: `PIL.Image.open(file).convert("RGB")`, preceded by `ImageOps.exif_transpose` unless told otherwise.

use std::{
    fs::File,
    io::{BufReader, Read, Seek},
    path::Path,
    sync::Arc,
};

use fieldmark_model::reading::stand_in;
use image::{ImageFormat, ImageReader};

use super::{
    decode_options::{DecodeOptions, ExifOrientation, MANY_PIXELS},
    jpeg, other_formats, png_webp,
    rgb::to_rgb,
    sizes::Size,
};
use crate::error::ProcessorError;

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
    /// More pixels than this are worth a word: the number from which Pillow warns. A photograph rarely has them.
    pub const MANY_PIXELS: u64 = MANY_PIXELS;

    /// Returns the size that the header of a file says, before it is turned upright. `None` if that cannot be read.
    pub fn size_in_header(file: impl Read + Seek) -> Option<Size> {
        let reader = ImageReader::new(BufReader::new(file)).with_guessed_format().ok()?;
        let (width, height) = reader.into_dimensions().ok()?;
        Some(Size::new(height as usize, width as usize))
    }

    /// Returns true if an image has more than [`Self::MANY_PIXELS`].
    pub fn is_large(size: Size) -> bool {
        size.height as u64 * size.width as u64 > MANY_PIXELS
    }

    /// Reads and decodes a file.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Io`] if the file cannot be read, otherwise the errors of [`Photo::decode`]. All name
    /// the file.
    pub fn open(path: impl AsRef<Path>, options: &DecodeOptions) -> Result<Self, ProcessorError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(ProcessorError::io(path))?;
        let mut bytes = Vec::new();
        // Reading one byte past the limit detects an oversized file, or pipe, without reading all of it.
        file.take(options.max_file_bytes.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(ProcessorError::io(path))?;
        let name = path.display().to_string();
        if bytes.len() as u64 > options.max_file_bytes {
            let size = std::fs::metadata(path).map_or(0, |data| data.len());
            options.check_bytes(&name, size.max(bytes.len() as u64))?;
        }
        Self::decode(&bytes, &name, options)
    }

    /// Decodes a file held in memory; errors call it `name`.
    ///
    /// # Errors
    /// Returns [`ProcessorError::FileTooLarge`], [`ProcessorError::NotAnImage`], [`ProcessorError::OtherFormat`] or
    /// [`ProcessorError::TooManyPixels`], and [`ProcessorError::DamagedImage`] if the file is cut short or damaged.
    pub fn decode(bytes: &[u8], name: &str, options: &DecodeOptions) -> Result<Self, ProcessorError> {
        options.check_bytes(name, bytes.len() as u64)?;
        let (mut image, orientation) = match supported_format(bytes, name)? {
            ImageFormat::Jpeg => jpeg::decode(bytes, name, options)?,
            format => png_webp::decode(bytes, format, name, options)?,
        };
        if options.exif == ExifOrientation::Honour {
            image.apply_orientation(orientation);
        }
        let (height, width) = (image.height() as usize, image.width() as usize);
        Self::from_rgb(name, height, width, to_rgb(image, options.alpha))
    }

    /// Makes an image from its pixels: row by row, three bytes per pixel.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Pixels`] if a side is 0 or `rgb` does not hold height × width × 3 bytes.
    pub fn from_rgb(name: &str, height: usize, width: usize, rgb: Vec<u8>) -> Result<Self, ProcessorError> {
        if height == 0 || width == 0 || Some(rgb.len()) != height.checked_mul(width).and_then(|n| n.checked_mul(3)) {
            return Err(ProcessorError::Pixels {
                name: name.into(),
                reason: format!(
                    "{} bytes do not make an RGB image of {height}×{width} (height×width); give three bytes per pixel",
                    rgb.len()
                ),
            });
        }
        Ok(Self { name: name.into(), height, width, rgb: rgb.into() })
    }

    /// The file's path or the name given to [`Photo::decode`], for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// A note for the user if the image has so many pixels that it may be a mistake: more than [`Self::MANY_PIXELS`].
    pub fn note(&self) -> Option<String> {
        let Self { name, height, width, .. } = self;
        Self::is_large(Size::new(*height, *width))
            .then(|| format!("{name}: {width}×{height} pixels; a smaller copy of such a large image is read faster"))
    }

    /// The pixels, `[height, width, 3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Cuts out the part whose top left corner is (`top`, `left`).
    ///
    /// # Errors
    /// Returns [`ProcessorError::Pixels`] if the part is empty or extends beyond the image.
    pub fn crop(&self, top: usize, left: usize, height: usize, width: usize) -> Result<Self, ProcessorError> {
        let inside = |start: usize, len: usize, side: usize| start.checked_add(len).is_some_and(|end| end <= side);
        if !inside(top, height, self.height) || !inside(left, width, self.width) {
            return Err(ProcessorError::Pixels {
                name: self.name.to_string(),
                reason: format!(
                    "a crop of {height}×{width} at ({top}, {left}) extends beyond the image of {}×{}",
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

    /// The mirror image: left and right exchanged.
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

fn supported_format(bytes: &[u8], name: &str) -> Result<ImageFormat, ProcessorError> {
    let refuse = |reason: String| Err(ProcessorError::NotAnImage { name: name.into(), reason });
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => Ok(format),
        _ if bytes.is_empty() => refuse("the file is empty".into()),
        found => match (stand_in(bytes), other_formats::name_of(bytes), found) {
            (Some(what), ..) => refuse(what.into()),
            (None, Some(format), _) => Err(ProcessorError::OtherFormat { name: name.into(), format }),
            (None, None, Ok(other)) => refuse(format!("{other:?} images are not supported")),
            (None, None, Err(_)) => refuse("not an image".into()),
        },
    }
}
