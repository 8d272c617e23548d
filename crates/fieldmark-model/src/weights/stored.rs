//! Tensors as stored in safetensors files: conversion to and from f32, and writing of files.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    path::Path,
};

use half::{bf16, f16};
use safetensors::{Dtype, View, tensor::TensorView};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::{python_json::python_json, weight_type::WeightType};
use crate::{
    error::ModelError,
    files::{persist, write_whole},
};

/// A tensor in the number format of a safetensors file.
pub(super) struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}

impl Stored {
    pub(super) fn new(stored: WeightType, shape: Vec<usize>, values: &[f32]) -> Self {
        let dtype = match stored {
            WeightType::F32 => Dtype::F32,
            WeightType::F16 => Dtype::F16,
            WeightType::Bf16 => Dtype::BF16,
        };
        Self { dtype, shape, bytes: bytes(stored, values) }
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

fn bytes(stored: WeightType, values: &[f32]) -> Vec<u8> {
    match stored {
        WeightType::F32 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        WeightType::F16 => values.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
        WeightType::Bf16 => values.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
    }
}

/// Returns the values of the tensor `name` of the file `path`. Refuses values that are not finite.
pub(super) fn floats(view: &TensorView<'_>, path: &Path, name: &str) -> Result<Vec<f32>, ModelError> {
    let Some(values) = decoded(view) else {
        let (path, name, dtype) = (path.into(), name.into(), format!("{:?}", view.dtype()));
        return Err(ModelError::TensorType { path, name, dtype });
    };
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(ModelError::NotFinite { path: path.into(), name: name.into(), index }),
        None => Ok(values),
    }
}

/// Returns the values of a tensor, or `None` if they are not of a type that is read.
fn decoded(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    Some(match view.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|&b: &[u8; 4]| f32::from_le_bytes(b)).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|&b: &[u8; 2]| f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b: &[u8; 2]| bf16::from_le_bytes(b).to_f32()).collect(),
        _ => return None,
    })
}

/// Returns true if two tensors have the same shape and the same values, whatever types they are stored in.
pub(super) fn same_values(a: &TensorView<'_>, b: &TensorView<'_>) -> bool {
    if a.shape() != b.shape() {
        return false;
    }
    if a.dtype() == b.dtype() {
        return a.data() == b.data();
    }
    matches!((decoded(a), decoded(b)), (Some(a), Some(b)) if a == b)
}

/// Writes the tensors with these names into one safetensors file.
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

pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), ModelError> {
    write_whole(path, python_json(value).as_bytes()).map_err(ModelError::io(path))
}
