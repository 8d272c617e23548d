//! `preprocessor_config.json`: the settings of the image processor that a checkpoint was trained with.
//!
//! Reference: `Qwen2VLImageProcessor` of transformers. Both its older keys (`min_pixels`, `max_pixels`) and its newer
//! ones (`size: {shortest_edge, longest_edge}`) are read; the older ones win, as in the reference.

use std::path::Path;

use fieldmark_model::{GridThw, VisionConfig, reading};
use serde_json::{Value, json};

use super::{config_keys::Keys, sizes::PixelLimits};
use crate::error::ProcessorError;

/// Settings of the image processor.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessorConfig {
    /// Smallest and largest number of pixels after resizing.
    pub limits: PixelLimits,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Frames per patch; a still image is repeated.
    pub temporal_patch_size: usize,
    /// Side, in patches, of the square that becomes one token.
    pub merge_size: usize,
    /// Factor that each byte is multiplied by.
    pub rescale_factor: f64,
    /// Mean of each colour channel after rescaling.
    pub image_mean: [f64; 3],
    /// Standard deviation of each colour channel after rescaling.
    pub image_std: [f64; 3],
}

impl Default for ImageProcessorConfig {
    /// The settings of the published Qwen2.5-VL checkpoints: CLIP's mean and deviation, 14-pixel patches merged 2×2.
    fn default() -> Self {
        Self {
            limits: PixelLimits::CHECKPOINT,
            patch_size: 14,
            temporal_patch_size: 2,
            merge_size: 2,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.48145466, 0.4578275, 0.40821073],
            image_std: [0.26862954, 0.26130258, 0.27577711],
        }
    }
}

/// The largest patch, in pixels, frames or merged patches: published ones have 14, 2 and 2.
const MAX_SIZE: usize = 1024;
/// `PIL.Image.BICUBIC`.
const BICUBIC: usize = 3;

impl ImageProcessorConfig {
    /// Reads `preprocessor_config.json`. Missing keys get the defaults of the reference class. For the pixel limits
    /// these are 3,136 to 1,003,520, not the limits of the published checkpoints.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Io`] or [`ProcessorError::Config`], which names the file and the key.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ProcessorError> {
        let path = path.as_ref();
        Self::from_json(&reading::text(path)?, path)
    }

    /// Parses the text of a `preprocessor_config.json`; errors call the file `path`.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Config`], which names the key.
    pub fn from_json(text: &str, path: impl AsRef<Path>) -> Result<Self, ProcessorError> {
        let path = path.as_ref();
        let json: Value = serde_json::from_str(text).map_err(|error| ProcessorError::Config {
            path: path.into(),
            key: "preprocessor_config.json".into(),
            reason: format!("is not valid: {error}"),
        })?;
        Self::from_value(&json, path)
    }

    /// Reads settings that are part of the JSON file `path`, such as `image_processor` of a `processor_config.json`.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Config`], which names the key.
    pub fn from_value(json: &Value, path: impl AsRef<Path>) -> Result<Self, ProcessorError> {
        let path = path.as_ref();
        let Value::Object(map) = json else {
            let (key, reason) = ("image_processor".into(), "is not a JSON object".into());
            return Err(ProcessorError::Config { path: path.into(), key, reason });
        };
        let keys = Keys { map, path };
        keys.check_kind()?;
        if keys.flag("do_resize")? == Some(false) {
            return Err(keys.refuse("do_resize", "is false, but images must be resized; set it to true"));
        }
        if let Some(filter) = keys.whole("resample")?.filter(|&filter| filter != BICUBIC) {
            return Err(keys.refuse("resample", format!("is {filter}, but only {BICUBIC} (bicubic) is supported")));
        }
        let default = Self::default();
        let mut config = Self {
            limits: keys.limits()?,
            patch_size: keys.whole("patch_size")?.unwrap_or(default.patch_size),
            temporal_patch_size: keys.whole("temporal_patch_size")?.unwrap_or(default.temporal_patch_size),
            merge_size: keys.whole("merge_size")?.unwrap_or(default.merge_size),
            rescale_factor: keys.number("rescale_factor")?.unwrap_or(default.rescale_factor),
            image_mean: keys.channels("image_mean")?.unwrap_or(default.image_mean),
            image_std: keys.channels("image_std")?.unwrap_or(default.image_std),
        };
        if keys.flag("do_rescale")? == Some(false) {
            config.rescale_factor = 1.0;
        }
        if keys.flag("do_normalize")? == Some(false) {
            (config.image_mean, config.image_std) = ([0.0; 3], [1.0; 3]);
        }
        config.check().map_err(|(key, reason)| keys.refuse(key, reason))?;
        Ok(config)
    }

    /// Returns the settings in the form of a `preprocessor_config.json`, which transformers 4 and 5 read.
    pub fn to_json(&self) -> Value {
        let PixelLimits { min_pixels, max_pixels } = self.limits;
        json!({
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2_5_VLProcessor",
            "min_pixels": min_pixels,
            "max_pixels": max_pixels,
            "patch_size": self.patch_size,
            "temporal_patch_size": self.temporal_patch_size,
            "merge_size": self.merge_size,
            "rescale_factor": self.rescale_factor,
            "image_mean": self.image_mean,
            "image_std": self.image_std,
        })
    }

    /// Returns the settings in the form that transformers 5 nests in `processor_config.json`.
    pub(crate) fn to_nested_json(&self) -> Value {
        let PixelLimits { min_pixels, max_pixels } = self.limits;
        json!({
            "image_processor_type": "Qwen2VLImageProcessor",
            "do_convert_rgb": true,
            "do_normalize": true,
            "do_rescale": true,
            "do_resize": true,
            "image_mean": self.image_mean,
            "image_std": self.image_std,
            "merge_size": self.merge_size,
            "patch_size": self.patch_size,
            "resample": BICUBIC,
            "rescale_factor": self.rescale_factor,
            "size": { "longest_edge": max_pixels, "shortest_edge": min_pixels },
            "temporal_patch_size": self.temporal_patch_size,
        })
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, value) in [
            ("patch_size", self.patch_size),
            ("temporal_patch_size", self.temporal_patch_size),
            ("merge_size", self.merge_size),
        ] {
            if !(1..=MAX_SIZE).contains(&value) {
                return Err((key, format!("is {value}, but must be from 1 to {MAX_SIZE}")));
            }
        }
        if let Err(ProcessorError::PixelLimit { key, value, reason }) = self.limits.check() {
            return Err((key, format!("is {value}: {reason}")));
        }
        if self.image_std.contains(&0.0) {
            return Err(("image_std", "must not be 0".into()));
        }
        Ok(())
    }

    /// The sides of a resized image are multiples of this many pixels.
    pub fn factor(&self) -> usize {
        self.patch_size * self.merge_size
    }

    /// Numbers per patch: colours × frames × height × width.
    pub fn patch_len(&self) -> usize {
        3 * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Number of tokens that an image with this grid takes in the text.
    pub fn tokens(&self, grid: GridThw) -> usize {
        grid.tokens(self.merge_size)
    }

    /// Returns true if the vision encoder accepts patches made with these settings.
    pub fn fits(&self, vision: &VisionConfig) -> bool {
        vision.in_channels == 3
            && self.patch_size == vision.patch_size
            && self.temporal_patch_size == vision.temporal_patch_size
            && self.merge_size == vision.spatial_merge_size
    }
}
