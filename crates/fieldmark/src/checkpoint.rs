//! A checkpoint folder in and out: model, processor and end tokens, checked against each other.

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

/// The parts of a checkpoint that are read before its weights, because they are small and the data depends on them.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The folder.
    pub folder: PathBuf,
    /// Tokenizer, image processor, chat template.
    pub processor: Processor,
    /// Tokens that end a response.
    pub eos: Vec<u32>,
    /// Longest sequence the model is meant for, in tokens.
    pub context: usize,
    dtype: WeightType,
    parts: PartTypes,
    stored: WeightType,
    lora: LoraSettings,
}

impl Checkpoint {
    /// Reads everything but the weights.
    ///
    /// # Errors
    /// If a file is missing or wrong; it is named.
    pub fn open(section: &ModelSection) -> Result<Self, RunError> {
        let folder = section.path.clone().filter(|path| !path.as_os_str().is_empty());
        let folder = folder.ok_or(RunError::Missing { what: "model", key: "model.path=DIR" })?;
        if !folder.is_dir() {
            let problem = "no such folder; name a checkpoint folder (config.json, weights, tokenizer)";
            return Err(RunError::path(folder, problem));
        }
        let processor = Processor::from_dir(&folder)?;
        let mut eos = CheckpointGeneration::from_folder(&folder)?.eos_token_ids;
        if eos.is_empty() {
            eos.push(processor.tokenizer.eos());
        }
        let context = Qwen25VlConfig::from_json_file(&folder.join("config.json"))?.text.max_position_embeddings;
        let &ModelSection { dtype, parts, stored, .. } = section;
        Ok(Self { folder, processor, eos, context, dtype, parts, stored, lora: LoraSettings::default() })
    }

    /// A checkpoint that is not on the disk yet, for a model made from nothing; [`Self::fill`] writes it. Responses end with
    /// the tokenizer's end token.
    pub fn made(processor: Processor, config: &Qwen25VlConfig) -> Self {
        let eos = vec![processor.tokenizer.eos()];
        let context = config.text.max_position_embeddings;
        let ModelSection { dtype, parts, stored, .. } = ModelSection::default();
        let folder = PathBuf::new();
        Self { folder, processor, eos, context, dtype, parts, stored, lora: LoraSettings::default() }
    }

    /// The checkpoint in `folder`, computed and stored in f32.
    ///
    /// # Errors
    /// Returns an error if a file is missing or wrong; the error names it.
    pub fn at(folder: impl Into<PathBuf>) -> Result<Self, RunError> {
        Self::open(&ModelSection { path: Some(folder.into()), ..ModelSection::default() })
    }

    /// The same for a run that trains adapters.
    pub fn with_lora(mut self, lora: &LoraSettings) -> Self {
        self.lora = lora.clone();
        self
    }

    /// Reads the weights onto `device`.
    ///
    /// # Errors
    /// If the weights are damaged or contradict `config.json`, or the device does not compute in their format.
    pub fn load(&self, device: &Device) -> Result<Qwen25Vl, RunError> {
        self.load_from(&self.folder, device)
    }

    /// Reads the weights of another folder, such as a checkpoint of this run.
    ///
    /// # Errors
    /// As [`Self::load`].
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
                    "this device does not compute in it; `fieldmark devices` lists what each device can".into();
                return Err(RunError::Setting { key: key.into(), value: dtype.to_string(), problem });
            }
        }
        let model = Qwen25Vl::from_pretrained(folder, options, device)?;
        self.processor.check(model.config(), folder.join("config.json"))?;
        Ok(model)
    }

    /// Writes a trained model with everything that belongs to it as `checkpoint` in `output`.
    ///
    /// # Errors
    /// If something cannot be written; then nothing is there.
    pub fn save_in(&self, model: &Qwen25Vl, output: &RunFolder) -> Result<PathBuf, RunError> {
        output.write_folder("checkpoint", |folder| self.fill(model, folder))
    }

    /// Writes a model and everything that belongs to it into a folder, which transformers then loads: adapters merged, and
    /// beside that alone in `adapter`, which PEFT loads.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn fill(&self, model: &Qwen25Vl, folder: &Path) -> Result<(), RunError> {
        save_weights(model, self.stored, folder)?;
        if model.has_lora() {
            model.save_adapter(&Self::adapter(folder), &self.lora, &self.folder.to_string_lossy())?;
        }
        self.processor.save(folder)?;
        write_whole(&folder.join("generation_config.json"), &self.generation_config()?)
    }

    /// The folder of the adapters in that of a checkpoint.
    pub fn adapter(folder: &Path) -> PathBuf {
        folder.join("adapter")
    }

    /// Writes the weights as they are computed in, if those of [`Self::fill`] are rounded.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn fill_exactly(&self, model: &Qwen25Vl, folder: &Path) -> Result<(), RunError> {
        // Adapters are always stored exactly, and what they are added to does not change.
        if model.has_lora() {
            return Ok(());
        }
        let PartTypes { vision, projector, decoder } = self.parts;
        let formats = [vision, projector, decoder].map(|part| part.unwrap_or(self.dtype));
        // f32 holds every number of the others.
        let exact = if formats == [formats[0]; 3] { formats[0] } else { WeightType::F32 };
        if self.stored == exact || self.stored == WeightType::F32 {
            return Ok(());
        }
        save_weights(model, exact, folder)
    }

    /// As it came; else what decoding needs.
    fn generation_config(&self) -> Result<Vec<u8>, RunError> {
        let path = self.folder.join("generation_config.json");
        if path.is_file() {
            return std::fs::read(&path).map_err(RunError::io(path));
        }
        let value = json!({ "eos_token_id": self.eos, "pad_token_id": self.processor.tokenizer.pad() });
        Ok(format!("{value:#}\n").into_bytes())
    }
}

fn save_weights(model: &Qwen25Vl, stored: WeightType, folder: &Path) -> Result<(), RunError> {
    Ok(model.save_pretrained(folder, SaveOptions { stored, ..SaveOptions::default() })?)
}

/// A processor with a stage's image sizes; `section` names the recipe's section in errors.
///
/// # Errors
/// Limits that no image can meet.
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

/// A processor with other limits than the checkpoint's where they are given.
///
/// # Errors
/// Limits that no image can meet.
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
        return refuse("max_pixels", max, "must be at least one patch's worth of pixels");
    }
    if min > max {
        return refuse("min_pixels", min, &format!("must be at most max_pixels, which is {max}"));
    }
    Ok(())
}
