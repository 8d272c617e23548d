//! What an adapter does to one parameter of its base: W' = m ∘ (W + s·A·B), then single rows are replaced. Each step is
//! optional.

use std::path::Path;

use burn::tensor::TensorData;
use safetensors::tensor::TensorView;

use crate::{error::ModelError, parameters::transpose, weights::stored::floats};

/// A tensor of the adapter's file.
#[derive(Debug, Clone)]
pub(super) struct Found<'a> {
    /// Name in the file.
    pub(super) name: String,
    pub(super) path: &'a Path,
    pub(super) view: TensorView<'a>,
}

impl Found<'_> {
    /// Returns the values, which must be finite.
    pub(super) fn values(&self) -> Result<Vec<f32>, ModelError> {
        floats(&self.view, self.path, &self.name)
    }

    /// Returns an error about this tensor.
    pub(super) fn refuse(&self, reason: impl Into<String>) -> ModelError {
        ModelError::AdapterTensor { path: self.path.into(), name: self.name.clone(), reason: reason.into() }
    }

    /// Checks the shape. `why` says what requires it.
    pub(super) fn check_shape(&self, expected: &[usize], why: &str) -> Result<(), ModelError> {
        if self.view.shape() == expected {
            return Ok(());
        }
        Err(self.refuse(format!("has shape {:?}, but {why} needs {expected:?}", self.view.shape())))
    }
}

/// The two factors of an adapter.
#[derive(Debug, Clone)]
pub(super) struct Factors<'a> {
    /// `[rank, in]`, in the file.
    pub(super) a: Found<'a>,
    /// `[out, rank]`, in the file.
    pub(super) b: Found<'a>,
    pub(super) rank: usize,
    /// Factor applied to their product.
    pub(super) scale: f64,
}

impl Factors<'_> {
    /// Returns A as `[in, rank]` and B as `[rank, out]`, for a matrix that is `[in, out]` in the model.
    pub(super) fn matrices(&self, [from, to]: [usize; 2]) -> Result<[TensorData; 2], ModelError> {
        let a = transpose(&self.a.values()?, self.rank, from);
        let b = transpose(&self.b.values()?, to, self.rank);
        Ok([TensorData::new(a, [from, self.rank]), TensorData::new(b, [self.rank, to])])
    }
}

/// The changes of one parameter, in the order in which they are made.
#[derive(Debug, Clone, Default)]
pub(super) struct Change<'a> {
    /// Replaces the whole parameter.
    pub(super) whole: Option<Found<'a>>,
    /// Added as s·A·B to a matrix.
    pub(super) factors: Option<Factors<'a>>,
    /// Length that each column of the sum gets (DoRA, arXiv 2402.09353), `[out]`.
    pub(super) magnitude: Option<Found<'a>>,
    /// Added to a bias after multiplication by the number.
    pub(super) bias: Option<(Found<'a>, f64)>,
    /// Replaces the rows of these tokens.
    pub(super) tokens: Option<(Vec<usize>, Found<'a>)>,
}

impl<'a> Change<'a> {
    /// Returns a tensor of the change other than the factors.
    pub(super) fn other(&self) -> Option<&Found<'a>> {
        let Self { whole, magnitude, bias, tokens, factors: _ } = self;
        let bias = bias.as_ref().map(|(found, _)| found);
        let tokens = tokens.as_ref().map(|(_, found)| found);
        whole.as_ref().or(magnitude.as_ref()).or(bias).or(tokens)
    }
}
