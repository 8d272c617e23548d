//! Replaces the parameters of a module by the tensors of a checkpoint.

use std::path::Path;

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, FloatDType, Tensor, TensorData},
};

use super::{checkpoint::Tensors, stored::floats};
use crate::{
    error::ModelError,
    parameters::{ParamPath, stored_shape, transpose},
};

/// Replaces the parameters of a module by tensors.
pub(crate) struct Filler<'a, T> {
    tensors: Tensors<'a>,
    /// Returns the name of the tensor for a parameter.
    name: fn(&ParamPath) -> String,
    /// Returns the type of a parameter; `None` means the device's default.
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

    /// Sets the shape, in checkpoints, of the convolution that is the patch projection.
    pub(super) fn with_patch(self, patch: [usize; 4]) -> Self {
        Self { patch, ..self }
    }

    /// Returns `module` with its parameters replaced. Each tensor is used once, and none may be left over. Errors name
    /// `path`.
    pub(crate) fn fill<M: Module>(mut self, module: M, path: &Path) -> Result<M, ModelError> {
        let module = module.map(&mut self);
        if let Some(error) = self.error {
            return Err(error);
        }
        if let Some(first) = self.missing.first()
            && !self.tensors.is_empty()
        {
            let names: Vec<&str> = self.tensors.values().map(|(name, ..)| name.as_str()).collect();
            let examples: Vec<String> = names.iter().take(3).map(|name| format!("`{name}`")).collect();
            let problem = format!(
                "{} tensors are missing, first `{first}`, and {} others have no place in this model, such as {}; {}",
                self.missing.len(),
                names.len(),
                examples.join(", "),
                hint(&names)
            );
            return Err(ModelError::refused(path, problem));
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

    /// Takes a tensor out of the checkpoint, checks it and converts it to Burn's layout.
    fn take(&mut self, key: &str, shape: &[usize]) -> Result<Option<TensorData>, ModelError> {
        let Some((name, path, view)) = self.tensors.remove(key) else {
            return Ok(None);
        };
        let linear = self.path.is_linear();
        let expected = stored_shape(key, linear, shape, self.patch);
        // A patch projection may also be stored as a matrix, with the same values in the same order.
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

/// What the names of tensors that have no place say about the checkpoint, and what to do.
fn hint(names: &[&str]) -> &'static str {
    let has = |part: &str| names.iter().any(|name| name.contains(part));
    if has("base_model.model.") || has(".base_layer.") || has(".lora_A.") {
        "these are the names of a model with PEFT adapters around it: save it after `merge_and_unload()`"
    } else if names.iter().all(|name| name.starts_with("module.") || name.starts_with("_orig_mod.")) {
        "these are the names of a model in a wrapper (`module.`, `_orig_mod.`): save the model inside it"
    } else {
        "config.json belongs to another model"
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
