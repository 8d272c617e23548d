//! A reference folder's `expected.safetensors`, read whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

use super::{
    ParityError,
    compare::{Report, Status, Tolerance},
};

/// One expected tensor; every type that occurs fits a double exactly.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Shape as stored.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Vec<f64>,
}

/// All expected tensors, and which of them have been dealt with.
#[derive(Debug)]
pub struct Fixture {
    /// The folder.
    pub folder: PathBuf,
    tensors: BTreeMap<String, Expected>,
    seen: BTreeSet<String>,
}

impl Fixture {
    /// Reads `expected.safetensors`.
    ///
    /// # Errors
    /// If the file is missing or damaged.
    pub fn open(folder: &Path) -> Result<Self, ParityError> {
        let path = folder.join("expected.safetensors");
        let bytes =
            std::fs::read(&path).map_err(|error| ParityError::Folder(format!("{}: {error}", path.display())))?;
        let damaged =
            |error| ParityError::Folder(format!("{}: not a readable safetensors file: {error}", path.display()));
        let parsed = SafeTensors::deserialize(&bytes).map_err(damaged)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in parsed.tensors() {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => data.as_chunks().0.iter().map(|&b: &[u8; 4]| f64::from(f32::from_le_bytes(b))).collect(),
                Dtype::F64 => data.as_chunks().0.iter().map(|&b: &[u8; 8]| f64::from_le_bytes(b)).collect(),
                Dtype::I64 => data.as_chunks().0.iter().map(|&b: &[u8; 8]| i64::from_le_bytes(b) as f64).collect(),
                Dtype::I32 => data.as_chunks().0.iter().map(|&b: &[u8; 4]| f64::from(i32::from_le_bytes(b))).collect(),
                Dtype::U8 => data.iter().map(|&b| f64::from(b)).collect(),
                other => {
                    return Err(ParityError::Folder(format!("{}: `{name}` has type {other:?}", path.display())));
                }
            };
            tensors.insert(name.to_string(), Expected { shape: view.shape().to_vec(), values });
        }
        Ok(Self { folder: folder.into(), tensors, seen: BTreeSet::new() })
    }

    /// Whether a tensor of this name is there.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// All names.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// An expected tensor, marked as dealt with.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn get(&mut self, name: &str) -> Result<&Expected, ParityError> {
        self.seen.insert(name.into());
        self.tensors.get(name).ok_or_else(|| {
            ParityError::Folder(format!("{}: expected.safetensors has no `{name}`", self.folder.display()))
        })
    }

    /// The same, as integers.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn integers(&mut self, name: &str) -> Result<Vec<i64>, ParityError> {
        Ok(self.get(name)?.values.iter().map(|&x| x as i64).collect())
    }

    /// The same, as a float tensor.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn tensor<const D: usize>(&mut self, name: &str, device: &Device) -> Result<Tensor<D>, ParityError> {
        let expected = self.get(name)?;
        let values: Vec<f32> = expected.values.iter().map(|&x| x as f32).collect();
        Ok(Tensor::from_data(TensorData::new(values, expected.shape.clone()), device))
    }

    /// The same, as an integer tensor.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn int_tensor<const D: usize>(&mut self, name: &str, device: &Device) -> Result<Tensor<D, Int>, ParityError> {
        let shape = self.get(name)?.shape.clone();
        Ok(Tensor::from_data(TensorData::new(self.integers(name)?, shape), device))
    }

    /// Compares a tensor of ours with the expected one of that name, if the folder has it.
    pub fn check<const D: usize>(&mut self, report: &mut Report, name: &str, got: Tensor<D>, tolerance: Tolerance) {
        self.check_where(report, name, got, tolerance, |_| true);
    }

    /// The same, where `keep` holds of the flat index.
    pub fn check_where<const D: usize>(
        &mut self,
        report: &mut Report,
        name: &str,
        got: Tensor<D>,
        tolerance: Tolerance,
        keep: impl Fn(usize) -> bool,
    ) {
        if let Some(expected) = self.tensors.get(name) {
            self.seen.insert(name.into());
            report.compare_where(name, &values(got), &expected.values, tolerance, keep);
        }
    }

    /// Compares numbers with the expected tensor of that name, if the folder has it.
    pub fn check_values(&mut self, report: &mut Report, name: &str, got: &[f64], tolerance: Tolerance) {
        if let Some(expected) = self.tensors.get(name) {
            self.seen.insert(name.into());
            report.compare(name, got, &expected.values, tolerance);
        }
    }

    /// Adds a line for every tensor that was not compared: an input where it was read, unknown where not.
    pub fn finish(self, report: &mut Report) {
        let compared: BTreeSet<String> = report.lines.iter().map(|line| line.name.clone()).collect();
        for name in self.tensors.keys().filter(|name| !compared.contains(*name)) {
            let status = if self.seen.contains(name) { Status::Input } else { Status::Unknown };
            report.push(name, status, "");
        }
    }
}

/// All values of a tensor as doubles.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}
