//! Writes the adapters of a model for PEFT, with the layer names of transformers 5
//! (`Qwen2_5_VLForConditionalGeneration`).

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use burn::module::Module;
use serde_json::{Map, Value, json};

use super::{
    folder::{CONFIG, WEIGHTS},
    key::PREFIX,
};
use crate::{
    error::ModelError,
    lora::LoraSettings,
    model::Qwen25Vl,
    parameters::{new_layout, transpose},
    parts::ModelPart,
    weights::{
        stored::{Stored, write_json, write_tensors},
        weight_type::WeightType,
    },
};

impl Qwen25Vl {
    /// Writes only the adapters, in f32, into `folder`, which is created if need be. `base` is the name of the base
    /// model. A layer whose rank or scale is not that of `settings` is listed with its own.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn save_adapter(&self, folder: &Path, settings: &LoraSettings, base: &str) -> Result<(), ModelError> {
        std::fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
        let (mut tensors, mut layers) = (BTreeMap::new(), Layers::default());
        let (mut ranks, mut alphas) = (Map::new(), Map::new());
        let mut model = self.valid();
        for layer in model.projections_mut() {
            let name = new_layout(&layer.name);
            let Some(pair) = &layer.projection.lora else {
                layers.add(layer.part, layer.short_name(), name, false);
                continue;
            };
            for (factor, param) in [("lora_A", &pair.a), ("lora_B", &pair.b)] {
                let tensor = param.val();
                let [rows, columns] = tensor.dims();
                let values: Vec<f32> = tensor.into_data().iter().collect();
                let stored = Stored::new(WeightType::F32, vec![columns, rows], &transpose(&values, rows, columns));
                tensors.insert(format!("{PREFIX}{name}.{factor}.weight"), stored);
            }
            let [_, rank] = pair.a.val().dims();
            if rank != settings.rank {
                ranks.insert(name.clone(), json!(rank));
            }
            let alpha = alpha_of(rank, pair.scale, settings);
            if alpha != settings.alpha {
                alphas.insert(name.clone(), number(alpha));
            }
            layers.add(layer.part, layer.short_name(), name, true);
        }
        write_tensors(&folder.join(WEIGHTS), &tensors, tensors.keys().map(String::as_str))?;
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": settings.rank,
            "lora_alpha": number(settings.alpha),
            "use_rslora": settings.rslora,
            "rank_pattern": ranks,
            "alpha_pattern": alphas,
            "target_modules": layers.target_modules(),
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "inference_mode": true,
            "modules_to_save": null,
        });
        write_json(&folder.join(CONFIG), &config)
    }
}

fn number(value: f64) -> Value {
    if value.fract() == 0.0 { json!(value as i64) } else { json!(value) }
}

/// Returns the alpha that gives exactly this scale. The run's own and whole numbers come first.
fn alpha_of(rank: usize, scale: f64, settings: &LoraSettings) -> f64 {
    let of = |alpha| LoraSettings { rank, alpha, ..settings.clone() }.scale();
    let exact = scale / of(1.0);
    [settings.alpha, exact.round()].into_iter().find(|&alpha| of(alpha) == scale).unwrap_or(exact)
}

/// The linear layers of a model: which have an adapter.
#[derive(Default)]
struct Layers {
    /// By part and short name: the names of layers with an adapter, and whether others have none.
    groups: BTreeMap<(ModelPart, String), (Vec<String>, bool)>,
}

impl Layers {
    fn add(&mut self, part: ModelPart, short: &str, name: String, adapted: bool) {
        let (names, others) = self.groups.entry((part, short.to_owned())).or_default();
        if adapted {
            names.push(name);
        } else {
            *others = true;
        }
    }

    /// Returns PEFT's `target_modules` as a regular expression that matches exactly the layers with an adapter. Plain
    /// names would not do: the vision encoder has layers called `gate_proj` too.
    fn target_modules(&self) -> String {
        let escaped = |name: &String| name.replace('.', r"\.");
        let mut whole: BTreeMap<ModelPart, BTreeSet<String>> = BTreeMap::new();
        let mut single = Vec::new();
        for ((part, short), (names, others)) in &self.groups {
            if *others {
                single.extend(names.iter().map(escaped));
            } else {
                whole.entry(*part).or_default().insert(escaped(short));
            }
        }
        let branches = whole.into_iter().map(|(part, names)| {
            let place = match part {
                ModelPart::Vision => r"model\.visual\.blocks\.\d+\.\w+\.",
                ModelPart::Projector => r"model\.visual\.merger\.",
                ModelPart::Decoder => r"model\.language_model\.layers\.\d+\.\w+\.",
            };
            format!("{place}({})", names.into_iter().collect::<Vec<_>>().join("|"))
        });
        branches.chain(single).collect::<Vec<_>>().join("|")
    }
}
