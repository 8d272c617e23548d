//! Reads and writes checkpoint folders: model, processor and end tokens, checked against each other.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fieldmark_generate::CheckpointGeneration;
use fieldmark_model::{
    Adapter, LoadOptions, LoraSettings, PartTypes, Pretrained, Qwen25Vl, Qwen25VlConfig, SaveOptions, TrainableParts,
    WeightType, checkpoint_folder,
};
use fieldmark_processor::{PixelLimits, Processor, ProcessorError};
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
    /// Adapter that belongs to the weights.
    pub adapter: Option<Adapter>,
    /// What is used that the folder does not have or that lies elsewhere, such as the checkpoint in the folder of a run.
    pub notes: Vec<String>,
    /// Parts of the folder that contradict each other, and which of them counts. A checkpoint that is written again has
    /// only what counts.
    pub contradictions: Vec<String>,
    dtype: WeightType,
    parts: PartTypes,
    stored: WeightType,
    lora: LoraSettings,
    /// `generation_config.json` as the folder has it.
    generation_config: Option<Vec<u8>>,
}

impl Checkpoint {
    /// Reads everything except the weights. `model.path` may also be the folder of a finished run.
    ///
    /// # Errors
    /// Returns an error that names the file if one is missing or wrong, and one that says what the folder is if it is no
    /// checkpoint.
    pub fn open(section: &ModelSection) -> Result<Self, RunError> {
        let folder = Self::folder_of(section)?;
        let Pretrained { folder, config, mut notes, mut contradictions } = Pretrained::open(&folder)?;
        let (processor, remarks) = Processor::from_dir_with_remarks(&folder)?;
        let generation = CheckpointGeneration::from_folder(&folder)?;
        notes.extend(remarks.notes);
        contradictions.extend(remarks.contradictions);
        contradictions.extend(generation.contradictions(&processor.tokenizer));
        let eos = generation.end_tokens(&processor.tokenizer);
        let context = config.text.max_position_embeddings;
        let path = folder.join("generation_config.json");
        let generation_config =
            path.is_file().then(|| std::fs::read(&path).map_err(RunError::io(&path))).transpose()?;
        let adapter = section.adapter_folder().map(|adapter| open_adapter(adapter, &folder)).transpose()?;
        let &ModelSection { dtype, parts, stored, .. } = section;
        let lora = LoraSettings::default();
        Ok(Self {
            folder,
            processor,
            eos,
            context,
            adapter,
            notes,
            contradictions,
            dtype,
            parts,
            stored,
            lora,
            generation_config,
        })
    }

    /// Returns the folder that the section names, which may be that of a run.
    fn folder_of(section: &ModelSection) -> Result<PathBuf, RunError> {
        let folder = section.path.clone().filter(|path| !path.as_os_str().is_empty());
        folder.ok_or(RunError::Missing { what: "model", key: "model.path=DIR" })
    }

    /// Returns the folder with the weights that the section means.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub(crate) fn source(section: &ModelSection) -> Result<PathBuf, RunError> {
        Ok(checkpoint_folder(&Self::folder_of(section)?)?.0)
    }

    /// Creates a checkpoint for a model that is not on disk yet; [`Self::fill`] writes it. Responses end with the
    /// tokenizer's end token.
    pub fn made(processor: Processor, config: &Qwen25VlConfig) -> Self {
        let eos = vec![processor.tokenizer.eos()];
        let context = config.text.max_position_embeddings;
        let processor = processor.with_context(context);
        let ModelSection { dtype, parts, stored, .. } = ModelSection::default();
        let (folder, lora) = (PathBuf::new(), LoraSettings::default());
        let (notes, contradictions) = (Vec::new(), Vec::new());
        Self {
            folder,
            processor,
            eos,
            context,
            adapter: None,
            notes,
            contradictions,
            dtype,
            parts,
            stored,
            lora,
            generation_config: None,
        }
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

    /// Checks before the weights are loaded onto `device` that `lora` names layers of this model in the trained parts, and
    /// that a run with these settings can go on with the checkpoint's adapter, if it has one.
    ///
    /// # Errors
    /// Returns an error that says which target no layer has, that no part is trained, or that names the key if the adapter
    /// has another rank or alpha, or parts that are not trained.
    pub fn check_lora(&self, lora: &LoraSettings, train: TrainableParts, device: &Device) -> Result<(), RunError> {
        let config = Qwen25VlConfig::from_json_file(&self.folder.join("config.json"))?;
        lora.check(&config, train, device)?;
        match &self.adapter {
            Some(adapter) if lora.is_on() => Ok(adapter.check_settings(lora)?),
            _ => Ok(()),
        }
    }

    /// Loads the weights onto `device`, with the adapter merged into them.
    ///
    /// # Errors
    /// Returns an error if weights or adapter are damaged or contradict `config.json`, or if the device does not support
    /// their number format.
    pub fn load(&self, device: &Device) -> Result<Qwen25Vl, RunError> {
        let model = self.load_base(device)?;
        match &self.adapter {
            Some(adapter) => Ok(model.with_merged_adapter(adapter)?),
            None => Ok(model),
        }
    }

    /// Loads the weights without the adapter.
    ///
    /// # Errors
    /// Returns the errors of [`Self::load`].
    pub fn load_base(&self, device: &Device) -> Result<Qwen25Vl, RunError> {
        self.load_from(&self.folder, device)
    }

    /// Loads the weights from another folder, such as a checkpoint of this run, without the adapter.
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

    /// Returns the name of the model in logs: its folder, and that of its adapter.
    pub fn name(&self) -> String {
        let folder = self.folder.display();
        match &self.adapter {
            Some(adapter) => format!("{folder} with {}", adapter.folder().display()),
            None => folder.to_string(),
        }
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

/// Reads the configuration of an adapter. Refuses one that is in the weights of the model in `base` already: each
/// checkpoint of a run with adapters is the merged model, with its adapter in a subfolder.
fn open_adapter(folder: &Path, base: &Path) -> Result<Adapter, RunError> {
    let adapter = Adapter::open(folder)?;
    let [_, tensors] = adapter.files();
    let own = tensors.file_name().map(|name| Checkpoint::adapter(base).join(name));
    let merged = own.filter(|own| own.is_file()).map(|own| same_content(&own, &tensors)).transpose()?;
    if merged == Some(true) {
        let problem = format!(
            "is in the weights of {} already: leave model.adapter out, or set model.path to the base model{}",
            base.display(),
            adapter.base().map(|name| format!(" ({name})")).unwrap_or_default()
        );
        return Err(RunError::path(adapter.folder(), problem));
    }
    Ok(adapter)
}

fn same_content(one: &Path, other: &Path) -> Result<bool, RunError> {
    let length = |path: &Path| std::fs::metadata(path).map(|data| data.len()).map_err(RunError::io(path));
    let read = |path: &Path| std::fs::read(path).map_err(RunError::io(path));
    Ok(length(one)? == length(other)? && read(one)? == read(other)?)
}

fn save_weights(model: &Qwen25Vl, stored: WeightType, folder: &Path) -> Result<(), RunError> {
    Ok(model.save_pretrained(folder, SaveOptions { stored, ..SaveOptions::default() })?)
}

/// Returns a processor with the image sizes of a stage. `section` is the recipe section that errors name.
///
/// # Errors
/// Returns an error if no image can meet the limits, or none fits the model's context.
pub fn sized(processor: &Processor, sizes: ImageSizes, section: &str) -> Result<Processor, RunError> {
    let in_section = |error| match named(error, |key| format!("{section}.{key}")) {
        RunError::Setting { key, problem, .. } if key.ends_with("min_pixels") => {
            RunError::Setting { key, value: sizes.min_pixels.to_string(), problem }
        }
        other => other,
    };
    let (before, limits) = sizes.steps();
    let least = match before {
        None => sizes.min_pixels,
        // The processor then reduces what the loader has enlarged.
        Some(_) => sizes.min_pixels.min(processor.images.config().limits.max_pixels),
    };
    let own = PixelLimits { min_pixels: sizes.min_pixels, max_pixels: sizes.max_pixels };
    own.check().and_then(|()| processor.check_least_tokens(least)).map_err(in_section)?;
    let images = processor.images.clone().with_pre_resize(before);
    let images = match limits {
        Some(limits) => images.with_limits(limits),
        None => images,
    };
    Ok(processor.clone().with_images(|_| images))
}

/// Returns a processor with new pixel limits. A limit that is `None` stays the checkpoint's. `setting` turns `min_pixels`
/// and `max_pixels` into the names that errors use, such as `eval.min_pixels` or `--min-pixels`.
///
/// # Errors
/// Returns an error if no image can meet the limits, or none fits the model's context.
pub fn limited(
    processor: &Processor,
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
    setting: impl Fn(&str) -> String,
) -> Result<Processor, RunError> {
    processor.clone().with_pixel_limits(min_pixels, max_pixels).map_err(|error| named(error, setting))
}

fn named(error: ProcessorError, setting: impl Fn(&str) -> String) -> RunError {
    match error {
        ProcessorError::PixelLimit { key, value, reason } => {
            RunError::Setting { key: setting(key), value: value.to_string(), problem: reason }
        }
        other => other.into(),
    }
}
