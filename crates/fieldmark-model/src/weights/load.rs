//! Reads `model.safetensors`, or the shards that `model.safetensors.index.json` lists, into a model.
//!
//! Burn's own store reads one file; this one also follows a shard index, reads both key layouts and both forms of the
//! patch convolution, refuses damaged values, and names the tensor at fault.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Device, FloatDType, Tensor, TensorData},
};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Deserialize;

use super::names::{ParamPath, published_layout, stored_shape};
use crate::{config::Qwen25VlConfig, error::ModelError, model::Qwen25Vl, parts::Part};

/// How weights are brought onto a device.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Type of the parameters; the device's own default where it is `None`.
    pub dtype: Option<FloatDType>,
    /// Types of single parts where they differ from it.
    pub parts: PartTypes,
}

/// A type for each part of the model; what passes from one part to the next is cast.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartTypes {
    /// Patch embedding and blocks of the vision encoder.
    pub vision: Option<FloatDType>,
    /// The merger between encoder and decoder.
    pub projector: Option<FloatDType>,
    /// Embedding, blocks, norm and head.
    pub decoder: Option<FloatDType>,
}

impl PartTypes {
    fn of(&self, published: &str) -> Option<FloatDType> {
        match Part::of(published) {
            Part::Vision => self.vision,
            Part::Projector => self.projector,
            Part::Decoder => self.decoder,
        }
    }
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// The weight files of a checkpoint folder, or the one file that `path` already is.
///
/// # Errors
/// If the folder holds neither `model.safetensors` nor a readable index.
pub fn checkpoint_files(path: &Path) -> Result<Vec<PathBuf>, ModelError> {
    if path.is_file() {
        return Ok(vec![path.into()]);
    }
    let index = path.join("model.safetensors.index.json");
    if !index.is_file() {
        return Ok(vec![path.join("model.safetensors")]);
    }
    let text = std::fs::read_to_string(&index).map_err(ModelError::io(&index))?;
    let shards: ShardIndex = serde_json::from_str(&text).map_err(|error| ModelError::Json {
        path: index,
        what: "shard index",
        reason: error.to_string(),
    })?;
    let mut files: Vec<PathBuf> = shards.weight_map.into_values().map(|file| path.join(file)).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

impl Qwen25Vl {
    /// Reads `config.json` and the weights of a checkpoint folder.
    ///
    /// # Errors
    /// If a file is missing or damaged, or the weights do not fit the configuration.
    pub fn from_pretrained(folder: &Path, options: LoadOptions, device: &Device) -> Result<Self, ModelError> {
        let config = Qwen25VlConfig::from_json_file(&folder.join("config.json"))?;
        config.init(device).load_weights(folder, options)
    }

    /// Replaces every parameter but those of adapters by that of a checkpoint: a folder, or one safetensors file.
    ///
    /// # Errors
    /// If a tensor is missing, unknown, there twice, wrongly shaped or not finite; the model is then gone, so that a half-loaded one
    /// cannot be used.
    pub fn load_weights(self, path: &Path, options: LoadOptions) -> Result<Self, ModelError> {
        let files = CheckpointMap::open(path)?;
        let mut tensors = files.tensors(published_layout)?;
        // Older tools stored a buffer that is computed here, and some keep a copy of a tied head.
        tensors.retain(|name, _| !name.ends_with("rotary_emb.inv_freq"));
        if self.lm_head.is_none() {
            tensors.remove("lm_head.weight");
        }
        let vision = &self.config().vision;
        let patch = [vision.in_channels, vision.temporal_patch_size, vision.patch_size, vision.patch_size];
        let dtype = move |name: &str| options.parts.of(name).or(options.dtype);
        Filler::new(tensors, ParamPath::published, dtype).with_patch(patch).fill(self, path)
    }
}

#[allow(unsafe_code)]
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only and lives for the duration of one load; a checkpoint that another process cuts short
    // meanwhile is outside what this can guard against.
    unsafe { Mmap::map(file) }
}

/// The weight files of a checkpoint, in memory as far as they are read.
pub(crate) struct CheckpointMap(Vec<(Mmap, PathBuf)>);

impl CheckpointMap {
    /// Of a folder, or of one safetensors file.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let mut maps = Vec::new();
        for file in checkpoint_files(path)? {
            let opened = File::open(&file).map_err(ModelError::io(&file))?;
            maps.push((map_file(&opened).map_err(ModelError::io(&file))?, file));
        }
        Ok(Self(maps))
    }

    /// All tensors, by what `rename` makes of their names.
    pub(crate) fn tensors(&self, rename: fn(&str) -> String) -> Result<Tensors<'_>, ModelError> {
        by_name(&self.0, rename)
    }
}

/// Tensors by the name that a module has for them: name in the file, file, values.
pub(crate) type Tensors<'a> = BTreeMap<String, (String, &'a Path, TensorView<'a>)>;

fn by_name<M: AsRef<[u8]>>(files: &[(M, PathBuf)], rename: fn(&str) -> String) -> Result<Tensors<'_>, ModelError> {
    let mut tensors = Tensors::new();
    for (bytes, file) in files {
        let damaged =
            |error: safetensors::SafeTensorError| ModelError::Weights { path: file.clone(), reason: error.to_string() };
        let parsed = SafeTensors::deserialize(bytes.as_ref()).map_err(damaged)?;
        for (name, view) in parsed.tensors() {
            let key = rename(&name);
            if let Some((other, other_path, _)) = tensors.get(&key) {
                let other = format!("`{other}` in {}", other_path.display());
                return Err(ModelError::DuplicateTensor { path: file.clone(), name, other });
            }
            tensors.insert(key, (name, file.as_path(), view));
        }
    }
    Ok(tensors)
}

/// Puts tensors in the place of a module's parameters.
pub(crate) struct Filler<'a, T> {
    tensors: Tensors<'a>,
    /// The tensor that belongs to a parameter.
    name: fn(&ParamPath) -> String,
    /// The type of a parameter; the device's own default where there is none.
    dtype: T,
    patch: [usize; 4],
    path: ParamPath,
    missing: Vec<String>,
    error: Option<ModelError>,
}

impl<'a, T: Fn(&str) -> Option<FloatDType>> Filler<'a, T> {
    pub(crate) fn new(tensors: Tensors<'a>, name: fn(&ParamPath) -> String, dtype: T) -> Self {
        Self { tensors, name, dtype, patch: [0; 4], path: ParamPath::default(), missing: Vec::new(), error: None }
    }

    /// The same for a model whose patch projection is a convolution of this shape in checkpoints.
    fn with_patch(self, patch: [usize; 4]) -> Self {
        Self { patch, ..self }
    }

    /// `module` with the tensors for its parameters, each used once and none left. `path` stands for them in errors.
    pub(crate) fn fill<M: Module>(mut self, module: M, path: &Path) -> Result<M, ModelError> {
        let module = module.map(&mut self);
        if let Some(error) = self.error {
            return Err(error);
        }
        if let Some(first) = self.missing.first() {
            let (first, count) = (first.clone(), self.missing.len());
            return Err(ModelError::MissingTensors { path: path.into(), first, count });
        }
        if let Some((first, ..)) = self.tensors.values().next() {
            let (first, count) = (first.clone(), self.tensors.len());
            return Err(ModelError::UnknownTensors { path: path.into(), first, count });
        }
        Ok(module)
    }

    /// Takes the tensor out of the checkpoint, checked and laid out as Burn wants it.
    fn take(&mut self, key: &str, shape: &[usize]) -> Result<Option<TensorData>, ModelError> {
        let Some((name, path, view)) = self.tensors.remove(key) else {
            return Ok(None);
        };
        let linear = self.path.is_linear();
        let expected = stored_shape(key, linear, shape, self.patch);
        // A patch projection already stored as a matrix is the same numbers.
        let flat_patch = expected.len() == 5 && view.shape() == [shape[1], shape[0]];
        if view.shape() != expected && !flat_patch {
            let found = view.shape().to_vec();
            return Err(ModelError::TensorShape { path: path.into(), name, found, expected });
        }
        let values = floats(&view, path, &name)?;
        let values = if linear { transpose(&values, shape[1], shape[0]) } else { values };
        Ok(Some(TensorData::new(values, shape.to_vec())))
    }
}

impl<T: Fn(&str) -> Option<FloatDType>> ModuleMapper for Filler<'_, T> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.error.is_some() || self.path.is_lora() {
            return param;
        }
        let name = (self.name)(&self.path);
        let shape: [usize; D] = param.lazy_shape().dims();
        match self.take(&name, &shape) {
            Ok(Some(data)) => {
                let device = param.lazy_device();
                let dtype: DType = (self.dtype)(&name).unwrap_or(device.settings().float_dtype).into();
                let tensor = Tensor::from_data(data, (&device, dtype));
                let id = param.id;
                param.transform_for_load(tensor, id)
            }
            Ok(None) => {
                self.missing.push(name);
                param
            }
            Err(error) => {
                self.error = Some(error);
                param
            }
        }
    }
}

/// The finite numbers of a tensor called `name` in `path`.
pub(super) fn floats(view: &TensorView<'_>, path: &Path, name: &str) -> Result<Vec<f32>, ModelError> {
    let bytes = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b: &[u8; 4]| f32::from_le_bytes(b)).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|&b: &[u8; 2]| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b: &[u8; 2]| bf16::from_le_bytes(b).to_f32()).collect(),
        other => {
            let (path, name) = (path.into(), name.into());
            return Err(ModelError::TensorType { path, name, dtype: format!("{other:?}") });
        }
    };
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(ModelError::NotFinite { path: path.into(), name: name.into(), index }),
        None => Ok(values),
    }
}

/// Row-major `[rows, columns]` to row-major `[columns, rows]`, in blocks that stay in the cache.
pub(super) fn transpose<T: Copy + Default>(values: &[T], rows: usize, columns: usize) -> Vec<T> {
    const BLOCK: usize = 32;
    let mut out = vec![T::default(); values.len()];
    for top in (0..rows).step_by(BLOCK) {
        for left in (0..columns).step_by(BLOCK) {
            for r in top..(top + BLOCK).min(rows) {
                for c in left..(left + BLOCK).min(columns) {
                    out[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "model.layers.0.mlp.up_proj.weight";
    const NEW: &str = "model.language_model.layers.0.mlp.up_proj.weight";

    fn file(path: &str, names: &[&str]) -> (Vec<u8>, PathBuf) {
        let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
        let bytes = safetensors::serialize(names.iter().map(|name| (*name, view.clone())), None).unwrap();
        (bytes, path.into())
    }

    #[test]
    fn one_parameter_under_two_names_is_refused() {
        let once = [file("a", &["visual.x", OLD]), file("b", &["lm_head.weight"])];
        assert_eq!(by_name(&once, published_layout).unwrap().len(), 3);
        for (files, wanted) in [
            (vec![file("a", &[OLD, NEW])], [OLD, NEW]),
            (vec![file("a", &[OLD]), file("b", &[NEW])], [OLD, NEW]),
            (vec![file("a", &[OLD]), file("b", &[OLD])], [OLD, OLD]),
        ] {
            let error = by_name(&files, published_layout).err().unwrap();
            let ModelError::DuplicateTensor { path, name, other } = error else {
                panic!("{error}");
            };
            assert_eq!(path, files[files.len() - 1].1);
            // Within one file either name may come first.
            let says = |name: &str, other: &str| format!("{name} and `{other}` in {}", files[0].1.display());
            let found = format!("{name} and {other}");
            assert!(found == says(wanted[1], wanted[0]) || found == says(wanted[0], wanted[1]), "{found}");
        }
    }
}
