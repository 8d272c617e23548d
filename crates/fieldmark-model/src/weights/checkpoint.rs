//! The weight files of a checkpoint and their tensors: `model.safetensors`, or the shards listed in
//! `model.safetensors.index.json`.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use memmap2::Mmap;
use safetensors::{SafeTensors, tensor::TensorView};
use serde::Deserialize;

use crate::error::ModelError;

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// Returns the weight files of a checkpoint folder, or `path` itself if it is a file.
///
/// # Errors
/// Returns an error if the folder has a shard index that cannot be read. The weight files are not opened.
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

#[allow(unsafe_code)]
fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the map is read-only and only lives while weights are loaded. Nothing can guard against another process
    // that truncates the file meanwhile.
    unsafe { Mmap::map(file) }
}

/// The weight files of a checkpoint, mapped into memory.
pub(crate) struct CheckpointMap(Vec<(Mmap, PathBuf)>);

impl CheckpointMap {
    /// Maps the weight files of a folder, or a single safetensors file.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let mut maps = Vec::new();
        for file in checkpoint_files(path)? {
            let opened = File::open(&file).map_err(ModelError::io(&file))?;
            maps.push((map_file(&opened).map_err(ModelError::io(&file))?, file));
        }
        Ok(Self(maps))
    }

    /// Returns all tensors, with names changed by `rename`.
    pub(crate) fn tensors(&self, rename: fn(&str) -> String) -> Result<Tensors<'_>, ModelError> {
        by_name(&self.0, rename)
    }
}

/// Tensors by their name in the module: name in the file, file and values.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::published_layout;
    use safetensors::Dtype;

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
