//! Adds an adapter to the weights of its base, as `merge_and_unload` of PEFT does, but always computed in f32: each
//! changed parameter is rounded once, to its own number format.

use std::collections::BTreeMap;

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Device, Tensor, TensorData},
};

use super::{change::Change, folder::Adapter, plan::Plan};
use crate::{
    error::ModelError,
    model::Qwen25Vl,
    parameters::{ParamPath, transpose},
    weights::checkpoint::CheckpointMap,
};

impl Qwen25Vl {
    /// Adds an adapter to the weights: W + s·A·B replaces W, and so do the other parts of an adapter that PEFT has
    /// (magnitudes of DoRA, biases, whole modules, single tokens). If a tied head and the embedding then differ, the head
    /// gets a matrix of its own.
    ///
    /// # Errors
    /// Returns an error if a file is damaged; if a tensor has no place in this model, the wrong shape or no partner; if
    /// one would be left over; or if the model already has adapters.
    pub fn with_merged_adapter(self, adapter: &Adapter) -> Result<Self, ModelError> {
        if self.has_lora() {
            let reason = "the model has adapters already; merge an adapter before others are added".into();
            return Err(ModelError::Lora { reason });
        }
        let files = CheckpointMap::open(&adapter.weights_path())?;
        let Plan { changes, untie } = Plan::new(adapter, files.tensors(str::to_owned)?, &self)?;
        let model = if untie { self.with_own_head() } else { self };
        let mut merger = Merger { changes, path: ParamPath::default(), error: None };
        let model = model.map(&mut merger);
        match merger.error {
            Some(error) => Err(error),
            None => Ok(model),
        }
    }
}

struct Merger<'a> {
    /// By the published name of the parameter.
    changes: BTreeMap<String, Change<'a>>,
    path: ParamPath,
    error: Option<ModelError>,
}

impl ModuleMapper for Merger<'_> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(change) = self.changes.remove(&self.path.published()) else { return param };
        // Not tracked: a parameter is the beginning of a graph.
        let before = param.val().detach().set_require_grad(false);
        match changed(before, &change, self.path.is_linear()) {
            Ok(after) => {
                let id = param.id;
                param.transform_for_load(after.detach(), id)
            }
            Err(error) => {
                self.error.get_or_insert(error);
                param
            }
        }
    }
}

/// Returns a changed parameter. `transposed` says that checkpoints have the rows as columns.
fn changed<const D: usize>(before: Tensor<D>, change: &Change<'_>, transposed: bool) -> Result<Tensor<D>, ModelError> {
    let (dtype, device, shape) = (before.dtype(), before.device(), before.dims());
    // A vector is a matrix with one row.
    let size = [if D == 2 { shape[0] } else { 1 }, shape[D - 1]];
    let mut value = match &change.whole {
        Some(found) => {
            let values = found.values()?;
            let values = if transposed { transpose(&values, size[1], size[0]) } else { values };
            on(&device, values, size)
        }
        None => before.cast(DType::F32).reshape(size),
    };
    if let Some(factors) = &change.factors {
        let [a, b] = factors.matrices(size)?.map(|data| Tensor::<2>::from_data(data, (&device, DType::F32)));
        value = value + a.matmul(b) * factors.scale;
    }
    if let Some(found) = &change.magnitude {
        let length = value.clone().powi_scalar(2).sum_dim(0).sqrt();
        value = value * (on(&device, found.values()?, [1, size[1]]) / length);
    }
    if let Some((found, scale)) = &change.bias {
        value = value + on(&device, found.values()?, [1, size[1]]) * *scale;
    }
    if let Some((indices, found)) = &change.tokens {
        let mut all: Vec<f32> = value.into_data().iter().collect();
        let rows = found.values()?;
        let width = if transposed { size[0] } else { size[1] };
        for (&token, row) in indices.iter().zip(rows.chunks(width)) {
            for (i, &x) in row.iter().enumerate() {
                all[if transposed { i * size[1] + token } else { token * width + i }] = x;
            }
        }
        value = on(&device, all, size);
    }
    Ok(value.cast(dtype).reshape(shape))
}

fn on(device: &Device, values: Vec<f32>, size: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, size), (device, DType::F32))
}
