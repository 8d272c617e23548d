//! Writes a checkpoint folder that transformers loads: `config.json` and `model.safetensors`, in shards where it is large.
//!
//! Names are the published ones. Every file appears under a temporary name first and is renamed when whole.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    path::Path,
};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{DType, Tensor},
};
use half::{bf16, f16};
use safetensors::{Dtype, View};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use super::{
    load::transpose,
    names::{ParamPath, stored_shape},
};
use crate::{
    error::ModelError,
    files::{persist, write_whole},
    model::Qwen25Vl,
};

/// The type in which weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoredType {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with five of exponent.
    F16,
    /// 16 bits with eight of exponent: the type of the published checkpoints.
    Bf16,
}

impl StoredType {
    /// The name in `config.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    fn bytes(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            Self::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
        }
    }
}

/// How a checkpoint is written.
#[derive(Debug, Clone, Copy)]
pub struct SaveOptions {
    /// Type of the stored weights.
    pub stored: StoredType,
    /// Bytes of weights in one file at most, as far as single tensors allow.
    pub max_shard_bytes: usize,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self { stored: StoredType::F32, max_shard_bytes: 5_000_000_000 }
    }
}

pub(super) struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    pub(super) fn new(stored: StoredType, shape: Vec<usize>, values: &[f32]) -> Self {
        let dtype = match stored {
            StoredType::F32 => Dtype::F32,
            StoredType::F16 => Dtype::F16,
            StoredType::Bf16 => Dtype::BF16,
        };
        Self { dtype, shape, bytes: stored.bytes(values) }
    }
}

impl View for &Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

impl Qwen25Vl {
    /// Writes `config.json` and the weights into `folder`, which is made if need be. Shards of an earlier, larger
    /// checkpoint are removed once the new files are whole. Adapters are merged into the weights.
    ///
    /// # Errors
    /// If a file cannot be written.
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
        write_json(&folder.join("config.json"), &self.config().to_json(options.stored.name()))
    }
}

/// One safetensors file with the tensors named.
pub(super) fn write_tensors<'a>(
    path: &Path,
    tensors: &'a BTreeMap<String, Stored>,
    names: impl Iterator<Item = &'a str>,
) -> Result<(), ModelError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = NamedTempFile::new_in(folder).map_err(ModelError::io(path))?;
    let views = names.filter_map(|name| tensors.get(name).map(|tensor| (name, tensor)));
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(metadata), temporary.path())
        .map_err(|error| ModelError::Weights { path: path.into(), reason: error.to_string() })?;
    persist(temporary, path).map_err(ModelError::io(path))
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

pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), ModelError> {
    write_whole(path, format!("{value:#}\n").as_bytes()).map_err(ModelError::io(path))
}

struct Collector {
    tensors: BTreeMap<String, Stored>,
    stored: StoredType,
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
