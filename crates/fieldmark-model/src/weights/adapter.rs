//! Reads and writes adapters in PEFT's format: `adapter_config.json`, and `adapter_model.safetensors` with the tensors
//! `base_model.model.<layer>.lora_A.weight`, `[rank, in]`, and `lora_B.weight`, `[out, rank]`.
//!
//! Layers are written with the names of transformers 5 (`Qwen2_5_VLForConditionalGeneration`) and read in both layouts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use burn::{
    module::{Module, Param},
    tensor::{Tensor, TensorData},
};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    stored::{Stored, floats, write_json, write_tensors},
    weight_type::WeightType,
};
use crate::{
    error::ModelError,
    lora::LoraSettings,
    model::Qwen25Vl,
    parameters::{new_layout, published_layout, transpose},
    parts::ModelPart,
};

const PREFIX: &str = "base_model.model.";
const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapter_model.safetensors";

/// The keys of PEFT's configuration that are used. `rest` has the keys that must be at their defaults.
#[derive(Deserialize)]
struct PeftConfig {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

impl PeftConfig {
    fn read(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(ModelError::io(path))?;
        let error = |reason: String| ModelError::Json { path: path.into(), what: "PEFT configuration", reason };
        let config: Self = serde_json::from_str(&text).map_err(|found| error(found.to_string()))?;
        if config.peft_type != "LORA" {
            return Err(error(format!("`peft_type` is {}: only LORA is supported", config.peft_type)));
        }
        let plain = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text == "none",
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        // Each of these keys changes what the adapter computes.
        for key in
            ["bias", "use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save", "rank_pattern", "alpha_pattern"]
        {
            if let Some(value) = config.rest.get(key).filter(|value| !plain(value)) {
                return Err(error(format!("`{key}` = {value} is not supported")));
            }
        }
        if config.r == 0 || !config.lora_alpha.is_finite() {
            return Err(error("`r` must be at least 1, and `lora_alpha` must be finite".into()));
        }
        Ok(config)
    }
}

impl Qwen25Vl {
    /// Writes only the adapters, in f32, into `folder`, which is created if need be. `base` is the name of the base
    /// model.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn save_adapter(&self, folder: &Path, settings: &LoraSettings, base: &str) -> Result<(), ModelError> {
        std::fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
        let (mut tensors, mut names) = (BTreeMap::new(), BTreeMap::<ModelPart, BTreeSet<String>>::new());
        let mut model = self.valid();
        for layer in model.projections_mut() {
            let Some(pair) = &layer.projection.lora else { continue };
            for (factor, param) in [("lora_A", &pair.a), ("lora_B", &pair.b)] {
                let tensor = param.val();
                let [rows, columns] = tensor.dims();
                let values: Vec<f32> = tensor.into_data().iter().collect();
                let stored = Stored::new(WeightType::F32, vec![columns, rows], &transpose(&values, rows, columns));
                tensors.insert(format!("{PREFIX}{}.{factor}.weight", new_layout(&layer.name)), stored);
            }
            names.entry(layer.part).or_default().insert(layer.short_name().to_owned());
        }
        write_tensors(&folder.join(WEIGHTS), &tensors, tensors.keys().map(String::as_str))?;
        let alpha = if settings.alpha.fract() == 0.0 { json!(settings.alpha as i64) } else { json!(settings.alpha) };
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": settings.rank,
            "lora_alpha": alpha,
            "use_rslora": settings.rslora,
            "target_modules": target_modules(&names),
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
            "modules_to_save": null,
        });
        write_json(&folder.join(CONFIG), &config)
    }

    /// Adds the adapters in a folder written by PEFT or [`Self::save_adapter`]. They replace existing adapters.
    ///
    /// # Errors
    /// Returns an error if a file is missing, damaged or of an unsupported kind of LoRA; if a factor is missing or has
    /// the wrong shape; if a layer is unknown; or if a layer of the model already has an adapter but the folder has
    /// none for it.
    pub fn with_adapter(mut self, folder: &Path) -> Result<Self, ModelError> {
        let PeftConfig { r, lora_alpha, use_rslora, .. } = PeftConfig::read(&folder.join(CONFIG))?;
        let settings = LoraSettings { rank: r, alpha: lora_alpha, rslora: use_rslora, ..LoraSettings::default() };
        let path = folder.join(WEIGHTS);
        let bytes = std::fs::read(&path).map_err(ModelError::io(&path))?;
        let mut tensors = BTreeMap::new();
        let parsed = SafeTensors::deserialize(&bytes)
            .map_err(|error| ModelError::Weights { path: path.clone(), reason: error.to_string() })?;
        for (name, view) in parsed.tensors() {
            let published = published_layout(name.strip_prefix(PREFIX).unwrap_or(&name));
            tensors.insert(published, (name, view));
        }
        for layer in self.projections_mut() {
            let [from, to] = layer.projection.widths();
            let wanted = [("lora_A", [r, from]), ("lora_B", [to, r])];
            let keys = wanted.map(|(factor, shape)| (format!("{}.{factor}.weight", layer.name), shape));
            if layer.projection.lora.is_none() && keys.iter().all(|(key, _)| !tensors.contains_key(key)) {
                continue;
            }
            let mut factors = Vec::new();
            for (key, shape) in keys {
                let Some((name, view)) = tensors.remove(&key) else {
                    return Err(ModelError::MissingTensors { path, first: key, count: 1 });
                };
                if view.shape() != shape {
                    let (found, expected) = (view.shape().to_vec(), shape.to_vec());
                    return Err(ModelError::TensorShape { path, name, found, expected });
                }
                let values = floats(&view, &path, &name)?;
                factors.push(TensorData::new(transpose(&values, shape[0], shape[1]), [shape[1], shape[0]]));
            }
            let mut adapted = layer.projection.clone().with_lora(r, settings.scale());
            if let (Some(pair), Some(b), Some(a)) = (&mut adapted.lora, factors.pop(), factors.pop()) {
                pair.a = filled(&pair.a, a);
                pair.b = filled(&pair.b, b);
            }
            *layer.projection = adapted;
        }
        if let Some((first, _)) = tensors.values().next() {
            return Err(ModelError::UnknownTensors { path, first: first.clone(), count: tensors.len() });
        }
        Ok(self)
    }
}

/// Returns a parameter with the values of `data`, on the device and in the type of `param`.
fn filled(param: &Param<Tensor<2>>, data: TensorData) -> Param<Tensor<2>> {
    Param::from_tensor(Tensor::from_data(data, (&param.device(), param.dtype())))
}

/// Returns PEFT's `target_modules` as a regular expression that matches exactly these layers. Plain names would not do:
/// the vision encoder has layers called `gate_proj` too.
fn target_modules(names: &BTreeMap<ModelPart, BTreeSet<String>>) -> String {
    let branches = names.iter().map(|(part, names)| {
        let names: Vec<String> = names.iter().map(|name| name.replace('.', r"\.")).collect();
        let place = match part {
            ModelPart::Vision => r"model\.visual\.blocks\.\d+\.\w+\.",
            ModelPart::Projector => r"model\.visual\.merger\.",
            ModelPart::Decoder => r"model\.language_model\.layers\.\d+\.\w+\.",
        };
        format!("{place}({})", names.join("|"))
    });
    branches.collect::<Vec<_>>().join("|")
}
