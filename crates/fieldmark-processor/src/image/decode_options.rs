//! How image files are read: orientation, transparency, and the limits that keep a hostile file from filling memory.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ProcessorError;

/// What to do with the orientation that a photograph's file records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExifOrientation {
    /// Turn the picture upright.
    #[default]
    Honour,
    /// Leave the pixels as stored, as the reference image processor does.
    Ignore,
}

/// What to do with transparency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
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
    /// What to do with the camera's orientation.
    pub exif: ExifOrientation,
    /// What to do with transparency.
    pub alpha: Alpha,
    /// Largest file size in bytes.
    pub max_file_bytes: u64,
    /// Largest number of pixels (width × height), checked before any pixel is decoded.
    pub max_decoded_pixels: u64,
}

/// More pixels than this are worth a word, as in Pillow (`Image.MAX_IMAGE_PIXELS`): a photograph rarely has them.
pub(super) const MANY_PIXELS: u64 = 89_478_485;

impl Default for DecodeOptions {
    /// 256 MiB, and the number of pixels above which Pillow refuses an image: 178,956,970.
    fn default() -> Self {
        Self {
            exif: ExifOrientation::default(),
            alpha: Alpha::default(),
            max_file_bytes: 256 << 20,
            max_decoded_pixels: 2 * MANY_PIXELS,
        }
    }
}

impl DecodeOptions {
    pub(super) fn check_bytes(&self, name: &str, bytes: u64) -> Result<(), ProcessorError> {
        let limit = self.max_file_bytes;
        match bytes > limit {
            true => Err(ProcessorError::FileTooLarge { name: name.into(), bytes, limit }),
            false => Ok(()),
        }
    }

    pub(super) fn check_pixels(&self, name: &str, width: u32, height: u32) -> Result<(), ProcessorError> {
        let limit = self.max_decoded_pixels;
        match u64::from(width) * u64::from(height) > limit {
            true => Err(ProcessorError::TooManyPixels { name: name.into(), width, height, limit }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_name_the_rules_in_lower_case() {
        let exif = [ExifOrientation::default(), ExifOrientation::Ignore];
        assert_eq!(serde_json::to_string(&exif).unwrap(), r#"["honour","ignore"]"#);
        assert_eq!(serde_json::from_str::<[ExifOrientation; 2]>(r#"["honour","ignore"]"#).unwrap(), exif);
        let alpha = [Alpha::default(), Alpha::White];
        assert_eq!(serde_json::to_string(&alpha).unwrap(), r#"["drop","white"]"#);
        assert_eq!(serde_json::from_str::<[Alpha; 2]>(r#"["drop","white"]"#).unwrap(), alpha);
    }
}
