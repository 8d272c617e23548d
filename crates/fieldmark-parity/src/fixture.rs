//! The `expected.safetensors` of a reference folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

use super::{
    compare::{Report, Status, Tolerance},
    error::ParityError,
};

/// What 16 bits may change in the forward pass, as a part of the largest value. The reference itself (transformers 5.24 in
/// bf16, both attention implementations) is up to 0.032 away from its results in f32.
const HALF_FORWARD: f64 = 0.08;

/// Name of the file in its folder.
const FILE: &str = "expected.safetensors";

/// An expected tensor. Its values are f64, which holds every stored float and every integer up to 2^53 exactly.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// Values in row-major order.
    pub values: Vec<f64>,
}

/// The expected tensors of a folder, and which of them have been read or compared.
#[derive(Debug)]
pub struct Fixture {
    /// The reference folder.
    pub folder: PathBuf,
    tensors: BTreeMap<String, Expected>,
    seen: BTreeSet<String>,
    half: bool,
}

impl Fixture {
    /// Reads `expected.safetensors`.
    ///
    /// # Errors
    /// Returns an error if the file is missing or damaged.
    pub fn open(folder: &Path) -> Result<Self, ParityError> {
        let path = folder.join(FILE);
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
                    return Err(ParityError::Folder(format!(
                        "{}: `{name}` has the unsupported type {other:?}",
                        path.display()
                    )));
                }
            };
            tensors.insert(name.to_string(), Expected { shape: view.shape().to_vec(), values });
        }
        Ok(Self { folder: folder.into(), tensors, seen: BTreeSet::new(), half: false })
    }

    /// Says that the model has weights of 16 bits: bounds of [`Self::check`] become those of 16 bits, unless exact.
    pub fn in_half(self, half: bool) -> Self {
        Self { half, ..self }
    }

    /// Returns true if the model has weights of 16 bits.
    pub fn is_half(&self) -> bool {
        self.half
    }

    /// Returns `tolerance`, or `part` of the largest value if the model has weights of 16 bits.
    pub fn tolerance(&self, tolerance: Tolerance, part: f64) -> Tolerance {
        match tolerance {
            Tolerance::Exact => tolerance,
            _ if self.half => Tolerance::RelativeToMax(part),
            _ => tolerance,
        }
    }

    /// Adds a line for every tensor whose name starts with `prefix`, and says that it is compared in f32 only.
    pub fn only_in_f32(&mut self, report: &mut Report, prefix: &str) {
        for name in self.names().into_iter().filter(|name| name.starts_with(prefix)) {
            report.push(&name, Status::Input, "compared in f32 only");
        }
    }

    /// Returns true if the file has a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Returns the names of all tensors.
    pub fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// Creates an error about a tensor, with its file and name.
    pub fn malformed(&self, name: &str, reason: impl Display) -> ParityError {
        ParityError::Folder(format!("{}: `{name}`: {reason}", self.folder.join(FILE).display()))
    }

    /// Reads an expected tensor.
    ///
    /// # Errors
    /// Returns an error if the file has no such tensor.
    pub fn get(&mut self, name: &str) -> Result<&Expected, ParityError> {
        self.seen.insert(name.into());
        self.tensors.get(name).ok_or_else(|| self.malformed(name, "is not in the file"))
    }

    /// Returns the shape of a tensor, which must have rank `N` and not be empty.
    ///
    /// # Errors
    /// Returns an error if the file has no such tensor, its rank is not `N`, or it is empty.
    pub fn dims<const N: usize>(&mut self, name: &str) -> Result<[usize; N], ParityError> {
        let shape = self.get(name)?.shape.clone();
        match <[usize; N]>::try_from(shape) {
            Ok(dims) if !dims.contains(&0) => Ok(dims),
            Ok(dims) => Err(self.malformed(name, format!("is empty: its shape is {dims:?}"))),
            Err(shape) => Err(self.malformed(name, format!("has the shape {shape:?}; its rank must be {N}"))),
        }
    }

    /// Checks the shape of a tensor.
    ///
    /// # Errors
    /// Returns an error if the file has no such tensor or its shape is not `dims`.
    pub fn expect<const N: usize>(&mut self, name: &str, dims: [usize; N]) -> Result<(), ParityError> {
        let found = self.dims::<N>(name)?;
        if found == dims {
            return Ok(());
        }
        Err(self.malformed(name, format!("has the shape {found:?}; to fit the other tensors it must be {dims:?}")))
    }

    /// Returns the value of a tensor with a single value.
    ///
    /// # Errors
    /// Returns an error if the file has no such tensor or it does not hold exactly one value.
    pub fn number(&mut self, name: &str) -> Result<f64, ParityError> {
        match self.get(name)?.values[..] {
            [value] => Ok(value),
            ref values => {
                let count = values.len();
                Err(self.malformed(name, format!("holds {count} numbers; it must hold one")))
            }
        }
    }

    /// Returns the values as integers.
    ///
    /// # Errors
    /// Returns an error if the file has no such tensor.
    pub fn integers(&mut self, name: &str) -> Result<Vec<i64>, ParityError> {
        Ok(self.get(name)?.values.iter().map(|&x| x as i64).collect())
    }

    /// Returns the values as integers in `0..end`.
    ///
    /// # Errors
    /// Returns an error if the file has no such tensor or a value is outside the range.
    pub fn indices(&mut self, name: &str, end: usize) -> Result<Vec<usize>, ParityError> {
        let values = self.integers(name)?;
        let inside = |&value: &i64| usize::try_from(value).ok().filter(|&value| value < end).ok_or(value);
        let found = values.iter().map(inside).collect::<Result<Vec<_>, _>>();
        found.map_err(|value| self.malformed(name, format!("holds {value}; values must be from 0 to {}", end - 1)))
    }

    /// Returns the values as a float tensor.
    ///
    /// # Errors
    /// Returns an error if the file has no such tensor, its rank is not `D`, or it is empty.
    pub fn tensor<const D: usize>(&mut self, name: &str, device: &Device) -> Result<Tensor<D>, ParityError> {
        let dims = self.dims::<D>(name)?;
        let values: Vec<f32> = self.get(name)?.values.iter().map(|&x| x as f32).collect();
        Ok(Tensor::from_data(TensorData::new(values, dims), device))
    }

    /// Returns the values as an integer tensor.
    ///
    /// # Errors
    /// Returns an error if the file has no such tensor, its rank is not `D`, or it is empty.
    pub fn int_tensor<const D: usize>(&mut self, name: &str, device: &Device) -> Result<Tensor<D, Int>, ParityError> {
        let dims = self.dims::<D>(name)?;
        Ok(Tensor::from_data(TensorData::new(self.integers(name)?, dims), device))
    }

    /// Compares a tensor with the expected tensor `name`, if the file has it.
    pub fn check<const D: usize>(&mut self, report: &mut Report, name: &str, got: Tensor<D>, tolerance: Tolerance) {
        self.check_where(report, name, got, tolerance, |_| true);
    }

    /// Like [`Self::check`], but compares only the values whose flat index `keep` accepts.
    pub fn check_where<const D: usize>(
        &mut self,
        report: &mut Report,
        name: &str,
        got: Tensor<D>,
        tolerance: Tolerance,
        keep: impl Fn(usize) -> bool,
    ) {
        let tolerance = self.tolerance(tolerance, HALF_FORWARD);
        if let Some(expected) = self.tensors.get(name) {
            self.seen.insert(name.into());
            report.compare_where(name, &values(got), &expected.values, tolerance, keep);
        }
    }

    /// Compares numbers with the expected tensor `name`, if the file has it.
    pub fn check_values(&mut self, report: &mut Report, name: &str, got: &[f64], tolerance: Tolerance) {
        if let Some(expected) = self.tensors.get(name) {
            self.seen.insert(name.into());
            report.compare(name, got, &expected.values, tolerance);
        }
    }

    /// Adds a line for every tensor that was not compared: `Input` if it was read, otherwise `Unknown`.
    pub fn finish(self, report: &mut Report) {
        let compared: BTreeSet<String> = report.lines.iter().map(|line| line.name.clone()).collect();
        for name in self.tensors.keys().filter(|name| !compared.contains(*name)) {
            let status = if self.seen.contains(name) { Status::Input } else { Status::Unknown };
            report.push(name, status, "");
        }
    }
}

/// Returns all values of a tensor as f64.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}
