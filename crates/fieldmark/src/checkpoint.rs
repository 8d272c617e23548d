//! Reads and writes checkpoint folders: model, processor and end tokens, checked against each other.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fieldmark_generate::CheckpointGeneration;
use fieldmark_model::{LoadOptions, LoraSettings, PartTypes, Qwen25Vl, Qwen25VlConfig, SaveOptions, WeightType};
use fieldmark_processor::{PixelLimits, Processor};
use serde_json::json;

use crate::{
    error::RunError,
    folder::{RunFolder, write_whole},
    recipe::{ImageSizes, ModelSection},
};

/// A checkpoint without its weights. These parts are read first, because they are small and the data depends on them.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The folder.
    pub folder: PathBuf,
    /// Tokenizer, image processor and chat template.
    pub processor: Processor,
    /// Tokens that end a response.
    pub eos: Vec<u32>,
    /// Length of the longest sequence that the model is made for, in tokens (`max_position_embeddings`).
    pub context: usize,
    dtype: WeightType,
    parts: PartTypes,
    stored: WeightType,
    lora: LoraSettings,
    /// `generation_config.json` as the folder has it.
    generation_config: Option<Vec<u8>>,
}

impl Checkpoint {
    /// Reads everything except the weights.
    ///
    /// # Errors
    /// Returns an error that names the file if one is missing or wrong.
    pub fn open(section: &ModelSection) -> Result<Self, RunError> {
        let folder = Self::folder_of(section)?;
        let processor = Processor::from_dir(&folder)?;
        let mut eos = CheckpointGeneration::from_folder(&folder)?.eos_token_ids;
        if eos.is_empty() {
            eos.push(processor.tokenizer.eos());
        }
        let context = Qwen25VlConfig::from_json_file(&folder.join("config.json"))?.text.max_position_embeddings;
        let path = folder.join("generation_config.json");
        let generation_config =
            path.is_file().then(|| std::fs::read(&path).map_err(RunError::io(&path))).transpose()?;
        let &ModelSection { dtype, parts, stored, .. } = section;
        let lora = LoraSettings::default();
        Ok(Self { folder, processor, eos, context, dtype, parts, stored, lora, generation_config })
    }

    /// Returns the folder that the section names.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub(crate) fn folder_of(section: &ModelSection) -> Result<PathBuf, RunError> {
        let folder = section.path.clone().filter(|path| !path.as_os_str().is_empty());
        let folder = folder.ok_or(RunError::Missing { what: "model", key: "model.path=DIR" })?;
        if !folder.is_dir() {
            let problem =
                "there is no such folder; set model.path to a checkpoint folder (config.json, weights, tokenizer)";
            return Err(RunError::path(folder, problem));
        }
        Ok(folder)
    }

    /// Creates a checkpoint for a model that is not on disk yet; [`Self::fill`] writes it. Responses end with the
    /// tokenizer's end token.
    pub fn made(processor: Processor, config: &Qwen25VlConfig) -> Self {
        let eos = vec![processor.tokenizer.eos()];
        let context = config.text.max_position_embeddings;
        let ModelSection { dtype, parts, stored, .. } = ModelSection::default();
        let (folder, lora) = (PathBuf::new(), LoraSettings::default());
        Self { folder, processor, eos, context, dtype, parts, stored, lora, generation_config: None }
    }

    /// Opens the checkpoint in `folder`, to be computed and stored in f32.
    ///
    /// # Errors
    /// Returns an error that names the file if one is missing or wrong.
    pub fn at(folder: impl Into<PathBuf>) -> Result<Self, RunError> {
        Self::open(&ModelSection { path: Some(folder.into()), ..ModelSection::default() })
    }

    /// Sets the LoRA settings, for a run that trains adapters.
    pub fn with_lora(mut self, lora: &LoraSettings) -> Self {
        self.lora = lora.clone();
        self
    }

    /// Loads the weights onto `device`.
    ///
    /// # Errors
    /// Returns an error if the weights are damaged or contradict `config.json`, or if the device does not support their
    /// number format.
    pub fn load(&self, device: &Device) -> Result<Qwen25Vl, RunError> {
        self.load_from(&self.folder, device)
    }

    /// Loads the weights from another folder, such as a checkpoint of this run.
    ///
    /// # Errors
    /// Returns the errors of [`Self::load`].
    pub fn load_from(&self, folder: &Path, device: &Device) -> Result<Qwen25Vl, RunError> {
        let options = LoadOptions { dtype: Some(self.dtype), parts: self.parts };
        let wanted = [
            ("model.dtype", options.dtype),
            ("model.parts.vision", self.parts.vision),
            ("model.parts.projector", self.parts.projector),
            ("model.parts.decoder", self.parts.decoder),
        ];
        for (key, dtype) in wanted {
            if let Some(dtype) = dtype.filter(|dtype| !device.supports_dtype(dtype.float_dtype())) {
                let problem =
                    "this device does not support the format; `fieldmark devices` lists what each device supports"
                        .into();
                return Err(RunError::Setting { key: key.into(), value: dtype.to_string(), problem });
            }
        }
        let model = Qwen25Vl::from_pretrained(folder, options, device)?;
        self.processor.check(model.config(), folder.join("config.json"))?;
        Ok(model)
    }

    /// Writes a trained model with all its files to the folder `checkpoint` in `output`.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written. The folder then does not exist.
    pub fn save_in(&self, model: &Qwen25Vl, output: &RunFolder) -> Result<PathBuf, RunError> {
        output.write_folder("checkpoint", |folder| self.fill(model, folder))
    }

    /// Writes a model with all its files to a folder that transformers can load. Adapters are merged into the weights
    /// and also saved in the subfolder `adapter`, which PEFT can load.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn fill(&self, model: &Qwen25Vl, folder: &Path) -> Result<(), RunError> {
        save_weights(model, self.stored, folder)?;
        if model.has_lora() {
            model.save_adapter(&Self::adapter(folder), &self.lora, &self.folder.to_string_lossy())?;
        }
        self.processor.save(folder)?;
        write_whole(&folder.join("generation_config.json"), &self.generation_config())
    }

    /// Returns the folder with the adapters of the checkpoint in `folder`.
    pub fn adapter(folder: &Path) -> PathBuf {
        folder.join("adapter")
    }

    /// Writes the weights in the format in which they are computed, if [`Self::fill`] rounds them.
    ///
    /// # Errors
    /// Returns an error if they cannot be written.
    pub fn fill_exactly(&self, model: &Qwen25Vl, folder: &Path) -> Result<(), RunError> {
        // Adapters are always stored exactly, and the weights below them do not change.
        if model.has_lora() {
            return Ok(());
        }
        let PartTypes { vision, projector, decoder } = self.parts;
        let formats = [vision, projector, decoder].map(|part| part.unwrap_or(self.dtype));
        // f32 holds every number of the other formats.
        let exact = if formats == [formats[0]; 3] { formats[0] } else { WeightType::F32 };
        if self.stored == exact || self.stored == WeightType::F32 {
            return Ok(());
        }
        save_weights(model, exact, folder)
    }

    /// The `generation_config.json` of the checkpoint, or a new one with the settings that decoding needs.
    fn generation_config(&self) -> Vec<u8> {
        let made = || {
            let value = json!({ "eos_token_id": self.eos, "pad_token_id": self.processor.tokenizer.pad() });
            format!("{value:#}\n").into_bytes()
        };
        self.generation_config.clone().unwrap_or_else(made)
    }
}

fn save_weights(model: &Qwen25Vl, stored: WeightType, folder: &Path) -> Result<(), RunError> {
    Ok(model.save_pretrained(folder, SaveOptions { stored, ..SaveOptions::default() })?)
}

/// Returns a processor with the image sizes of a stage. `section` is the recipe section that errors name.
///
/// # Errors
/// Returns an error if no image can meet the limits.
pub fn sized(processor: &Processor, sizes: ImageSizes, section: &str) -> Result<Processor, RunError> {
    check_limits(sizes.min_pixels, sizes.max_pixels, section)?;
    let (before, limits) = sizes.steps();
    let images = processor.images.clone().with_pre_resize(before);
    let images = match limits {
        Some(limits) => images.with_limits(limits),
        None => images,
    };
    Ok(processor.clone().with_images(|_| images))
}

/// Returns a processor with new pixel limits. A limit that is `None` stays the checkpoint's.
///
/// # Errors
/// Returns an error if no image can meet the limits.
pub fn limited(
    processor: &Processor,
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
    section: &str,
) -> Result<Processor, RunError> {
    let own = processor.images.config().limits;
    let limits = PixelLimits {
        min_pixels: min_pixels.unwrap_or(own.min_pixels.min(max_pixels.unwrap_or(usize::MAX))),
        max_pixels: max_pixels.unwrap_or(own.max_pixels.max(min_pixels.unwrap_or(0))),
    };
    check_limits(limits.min_pixels, limits.max_pixels, section)?;
    Ok(processor.clone().with_images(|images| images.with_limits(limits)))
}

fn check_limits(min: usize, max: usize, section: &str) -> Result<(), RunError> {
    let refuse = |key: &str, value: usize, problem: &str| {
        Err(RunError::Setting { key: format!("{section}.{key}"), value: value.to_string(), problem: problem.into() })
    };
    if max == 0 {
        return refuse("max_pixels", max, "must be at least the number of pixels of one patch");
    }
    if min > max {
        return refuse("min_pixels", min, &format!("must be at most max_pixels, which is {max}"));
    }
    Ok(())
}
