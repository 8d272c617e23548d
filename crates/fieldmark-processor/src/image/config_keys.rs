//! Reads the keys of an image processor's JSON by name, and refuses a processor of another kind.
//!
//! Reference: `Qwen2VLImageProcessor.__init__` of transformers.

use std::path::Path;

use serde_json::{Map, Value};

use super::sizes::PixelLimits;
use crate::error::ProcessorError;

/// The keys of the file `path`.
pub(super) struct Keys<'a> {
    pub(super) map: &'a Map<String, Value>,
    pub(super) path: &'a Path,
}

impl Keys<'_> {
    pub(super) fn refuse(&self, key: &str, reason: impl Into<String>) -> ProcessorError {
        ProcessorError::Config { path: self.path.into(), key: key.into(), reason: reason.into() }
    }

    /// Returns a value; `null` is none.
    fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A whole number of at least 0.
    pub(super) fn whole(&self, key: &str) -> Result<Option<usize>, ProcessorError> {
        self.get(key).map(|value| self.as_whole(key, value)).transpose()
    }

    fn as_whole(&self, key: &str, value: &Value) -> Result<usize, ProcessorError> {
        // Python's tools may write 3136.0; above 2^53 a float has no exact value.
        let float = value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..=9e15).contains(x)).map(|x| x as u64);
        let whole = value.as_u64().or(float).and_then(|whole| usize::try_from(whole).ok());
        whole.ok_or_else(|| self.refuse(key, format!("is {value}, but must be a whole number")))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, ProcessorError> {
        let wrong = |value: &Value| self.refuse(key, format!("is {value}, but must be a number"));
        self.get(key).map(|value| value.as_f64().ok_or_else(|| wrong(value))).transpose()
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ProcessorError> {
        let wrong = |value: &Value| self.refuse(key, format!("is {value}, but must be true or false"));
        self.get(key).map(|value| value.as_bool().ok_or_else(|| wrong(value))).transpose()
    }

    /// A number for each colour channel, or one for all.
    pub(super) fn channels(&self, key: &str) -> Result<Option<[f64; 3]>, ProcessorError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let each = match value {
            Value::Array(list) => list.iter().map(Value::as_f64).collect::<Option<Vec<f64>>>(),
            one => one.as_f64().map(|one| vec![one; 3]),
        };
        let each = each.and_then(|list| <[f64; 3]>::try_from(list).ok());
        let reason = || format!("is {value}, but must be one number, or three for red, green and blue");
        each.map(Some).ok_or_else(|| self.refuse(key, reason()))
    }

    /// Refuses an image processor of another kind by its name, and by steps that this one does not have.
    pub(super) fn check_kind(&self) -> Result<(), ProcessorError> {
        for key in ["image_processor_type", "feature_extractor_type"] {
            let Some(kind) = self.get(key) else { continue };
            let known = |kind: &str| ["Qwen2VL", "Qwen2_5_VL"].iter().any(|start| kind.starts_with(start));
            if !kind.as_str().is_some_and(known) {
                let reason = "but a Qwen2.5-VL model needs Qwen2VLImageProcessor; copy this file from the folder of its base model";
                return Err(self.refuse(key, format!("is {kind}, {reason}")));
            }
        }
        for key in ["do_center_crop", "do_pad"] {
            if self.flag(key)? == Some(true) {
                let reason = "is true, but photographs of Qwen2.5-VL are neither cropped nor padded; copy this file from the \
                              folder of the base model, or set it to false";
                return Err(self.refuse(key, reason));
            }
        }
        match self.get("crop_size") {
            Some(value) if self.flag("do_center_crop")?.is_none() => {
                let reason =
                    "but photographs of Qwen2.5-VL are not cropped; copy this file from the folder of the base model";
                Err(self.refuse("crop_size", format!("is {value}, {reason}")))
            }
            _ => Ok(()),
        }
    }

    /// The pixel limits: `min_pixels` and `max_pixels`, else those in `size`, else the reference's own.
    ///
    /// `size` must have both of its limits and nothing else. The reference refuses another one even where the older keys
    /// overrule it.
    pub(super) fn limits(&self) -> Result<PixelLimits, ProcessorError> {
        let size = self.size()?;
        let pick = |key: &str, of_size: fn(PixelLimits) -> usize, default: usize| {
            Ok::<_, ProcessorError>(self.whole(key)?.or(size.map(of_size)).unwrap_or(default))
        };
        Ok(PixelLimits {
            min_pixels: pick("min_pixels", |size| size.min_pixels, 56 * 56)?,
            max_pixels: pick("max_pixels", |size| size.max_pixels, 28 * 28 * 1280)?,
        })
    }

    fn size(&self) -> Result<Option<PixelLimits>, ProcessorError> {
        const BOTH: &str = "must have `shortest_edge` and `longest_edge`, the smallest and the largest number of pixels, and \
                            nothing else; copy this file from the folder of the base model";
        let Some(value) = self.get("size") else { return Ok(None) };
        let Some(size) = value.as_object() else {
            return Err(self.refuse("size", format!("is {value}, but {BOTH}")));
        };
        let given: Map<String, Value> = size
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        // The second pair is that of the first versions.
        for [min, max] in [["shortest_edge", "longest_edge"], ["min_pixels", "max_pixels"]] {
            if let (2, Some(least), Some(most)) = (given.len(), given.get(min), given.get(max)) {
                let whole = |key: &str, value: &Value| self.as_whole(&format!("size.{key}"), value);
                return Ok(Some(PixelLimits { min_pixels: whole(min, least)?, max_pixels: whole(max, most)? }));
            }
        }
        Err(self.refuse("size", format!("is {value}, but {BOTH}")))
    }
}
