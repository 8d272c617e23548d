//! Decodes the image of a row: a file, or bytes in the row. Also images that are named in the same ways elsewhere.

use std::path::Path;

use fieldmark_data::{ImageRoots, RowImage};
use fieldmark_processor::{DecodeOptions, Photo, ProcessorError};

use crate::error::RunError;

/// How much of a long text is shown.
const SHOWN: usize = 60;

/// Decodes an image whose path is that of its file.
pub fn open(image: &RowImage, options: &DecodeOptions) -> Result<Photo, ProcessorError> {
    match image {
        RowImage::Path(file) => Photo::open(file, options),
        RowImage::Bytes(image) => Photo::decode(&image.bytes, &image.name, options),
    }
}

/// Decodes an image that is named in a way in which a row may name it: by a path, or by a `file://` or `data:` URL. `place`
/// is the flag or key that names it, for errors.
///
/// # Errors
/// Returns an error if there is no such file, if the text is no image, or if the image cannot be decoded.
pub fn open_named(image: &Path, place: &str, options: &DecodeOptions) -> Result<Photo, RunError> {
    // What is there is read as it is: a pipe is no file, and a name may look like a URL.
    let text = match image.to_str() {
        Some(text) if !image.exists() => text,
        _ => return Ok(Photo::open(image, options)?),
    };
    let refuse = |problem: String| {
        let shown: String = text.chars().take(SHOWN).collect();
        let value = if shown.len() < text.len() { shown + "…" } else { shown };
        RunError::Setting { key: place.into(), value, problem }
    };
    let named = RowImage::from_text(text, place).map_err(|problem| refuse(problem.to_string()))?;
    let here = ImageRoots::default();
    match (here.locate(&named), here.similar_file(image)) {
        (Some(found), _) => Ok(open(&found, options)?),
        (None, Some(cause)) => Err(RunError::path(image, format!("no such file; {cause}"))),
        (None, None) => Ok(Photo::open(image, options)?),
    }
}
