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

use super::found::instead_of_weights;
use crate::{error::ModelError, reading};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// Returns the weight files of a checkpoint folder, or `path` itself if it is a file. A folder with both
/// `model.safetensors` and a shard index is read from the former, as transformers does.
///
/// # Errors
/// Returns an error if the folder has no weights in safetensors, or if its shard index cannot be read or names a file
/// that is not there. The weight files are not opened.
pub fn checkpoint_files(path: &Path) -> Result<Vec<PathBuf>, ModelError> {
    reading::refuse_dangling(path)?;
    let single = if path.is_file() { path.into() } else { path.join(SINGLE) };
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = path.join(INDEX);
    if !index.is_file() {
        return Err(ModelError::refused(path, instead_of_weights(path)));
    }
    let damaged = |reason: String| ModelError::Json { path: index.clone(), what: "shard index", reason };
    let shards: ShardIndex =
        serde_json::from_value(reading::json(&index, "shard index")?).map_err(|error| damaged(error.to_string()))?;
    let mut files: Vec<PathBuf> = shards.weight_map.into_values().map(|file| path.join(file)).collect();
    files.sort();
    files.dedup();
    let missing: Vec<_> = files.iter().filter(|file| !file.is_file()).collect();
    if let Some(first) = missing.first() {
        let problem = match missing.len() {
            1 => format!("is missing, one of the {} shards that {INDEX} lists; download it", files.len()),
            count => format!("is missing: {count} of the {} shards that {INDEX} lists are; download them", files.len()),
        };
        return Err(ModelError::refused(*first, problem));
    }
    if files.is_empty() {
        return Err(damaged("`weight_map` lists no tensors".into()));
    }
    Ok(files)
}

/// Returns a note if a folder has both forms of weights, of which only one is read.
pub(crate) fn two_forms(folder: &Path) -> Option<String> {
    (folder.join(SINGLE).is_file() && folder.join(INDEX).is_file()).then(|| {
        format!(
            "{} has {SINGLE} and {INDEX}; the weights are read from {SINGLE}, as transformers does",
            folder.display()
        )
    })
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
        reading::refuse_stand_in(file, &bytes.as_ref()[..bytes.as_ref().len().min(256)])?;
        let damaged = |error: safetensors::SafeTensorError| ModelError::Weights {
            path: file.clone(),
            reason: format!("{error}; it is cut short or damaged: download or copy it again"),
        };
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
    fn shards_that_are_not_there_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let map: BTreeMap<String, String> = (1..=3).map(|n| (format!("t{n}"), format!("{n}.safetensors"))).collect();
        std::fs::write(folder.path().join(INDEX), serde_json::json!({ "weight_map": map }).to_string()).unwrap();
        std::fs::write(folder.path().join("3.safetensors"), "").unwrap();
        let refused = || match checkpoint_files(folder.path()) {
            Err(ModelError::Refused { path, problem }) => (path.file_name().unwrap().to_owned(), problem),
            other => panic!("{other:?}"),
        };
        let (file, problem) = refused();
        assert!(file == "1.safetensors" && problem.contains("2 of the 3 shards"), "{problem}");
        std::fs::write(folder.path().join("1.safetensors"), "").unwrap();
        let (file, problem) = refused();
        assert!(file == "2.safetensors" && problem.contains("one of the 3 shards"), "{problem}");
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
