//! Writes a checkpoint folder that transformers loads: `config.json` and `model.safetensors`, or shards of a large
//! model.
//!
//! Tensors have their published names. Each file is written under a temporary name and renamed when it is complete.

use std::{collections::BTreeMap, path::Path};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{DType, Tensor},
};
use serde_json::json;

use super::{
    stored::{Stored, write_json, write_tensors},
    weight_type::WeightType,
};
use crate::{
    error::ModelError,
    model::Qwen25Vl,
    parameters::{ParamPath, stored_shape, transpose},
};

/// How a checkpoint is saved.
#[derive(Debug, Clone, Copy)]
pub struct SaveOptions {
    /// Number format of the stored weights.
    pub stored: WeightType,
    /// Maximum bytes of weights in one file. A single larger tensor still has a file to itself.
    pub max_shard_bytes: usize,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self { stored: WeightType::F32, max_shard_bytes: 5_000_000_000 }
    }
}

impl Qwen25Vl {
    /// Writes `config.json` and the weights into `folder`, which is created if need be. Adapters are merged into the
    /// weights. Once the new files are complete, shards of an earlier checkpoint are removed.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn save_pretrained(&self, folder: &Path, options: SaveOptions) -> Result<(), ModelError> {
        if self.has_lora() {
            return self.merged_in(Some(DType::F32)).save_pretrained(folder, options);
        }
        std::fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
        let vision = &self.config().vision;
        let mut collector = Collector {
            patch: [vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size],
            stored: options.stored,
            path: ParamPath::default(),
            tensors: BTreeMap::new(),
        };
        self.visit(&mut collector);
        let shards = shards(&collector.tensors, options.max_shard_bytes);
        let count = shards.len();
        let mut weight_map = BTreeMap::new();
        let mut files = Vec::new();
        for (i, names) in shards.iter().enumerate() {
            let file = match count {
                1 => "model.safetensors".to_string(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
            };
            let path = folder.join(&file);
            write_tensors(&path, &collector.tensors, names.iter().copied())?;
            weight_map.extend(names.iter().map(|name| (name.to_string(), file.clone())));
            files.push(file);
        }
        let index = folder.join("model.safetensors.index.json");
        if count > 1 {
            let total: usize = collector.tensors.values().map(|tensor| tensor.bytes.len()).sum();
            write_json(&index, &json!({ "metadata": { "total_size": total }, "weight_map": weight_map }))?;
        } else if index.exists() {
            std::fs::remove_file(&index).map_err(ModelError::io(&index))?;
        }
        remove_stale_shards(folder, &files)?;
        write_json(&folder.join("config.json"), &self.config().to_json(options.stored.config_name()))
    }
}

fn shards(tensors: &BTreeMap<String, Stored>, limit: usize) -> Vec<Vec<&str>> {
    let mut shards: Vec<Vec<&str>> = vec![Vec::new()];
    let mut size = 0;
    for (name, tensor) in tensors {
        if size > 0 && size + tensor.bytes.len() > limit {
            shards.push(Vec::new());
            size = 0;
        }
        size += tensor.bytes.len();
        if let Some(shard) = shards.last_mut() {
            shard.push(name);
        }
    }
    shards
}

fn remove_stale_shards(folder: &Path, files: &[String]) -> Result<(), ModelError> {
    for entry in std::fs::read_dir(folder).map_err(ModelError::io(folder))? {
        let path = entry.map_err(ModelError::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let shard = name == "model.safetensors" || (name.starts_with("model-") && name.contains("-of-"));
        if shard && name.ends_with(".safetensors") && !files.iter().any(|file| *file == name) {
            std::fs::remove_file(&path).map_err(ModelError::io(&path))?;
        }
    }
    Ok(())
}

struct Collector {
    tensors: BTreeMap<String, Stored>,
    stored: WeightType,
    patch: [usize; 4],
    path: ParamPath,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let shape: [usize; D] = tensor.dims();
        let values: Vec<f32> = tensor.into_data().iter::<f32>().collect();
        let (name, linear) = (self.path.published(), self.path.is_linear());
        let values = if linear { transpose(&values, shape[0], shape[1]) } else { values };
        let shape = stored_shape(&name, linear, &shape, self.patch);
        self.tensors.insert(name, Stored::new(self.stored, shape, &values));
    }
}
