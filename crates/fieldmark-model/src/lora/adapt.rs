//! A model with adapters, and the model with them merged.

use burn::{module::Module, tensor::DType};

use super::{
    layers::Layer,
    settings::{LoraSettings, is_called},
};
use crate::{error::ModelError, model::Qwen25Vl, parts::TrainableParts};

impl Qwen25Vl {
    /// The model with adapters on the layers that `settings` names in the parts that learn; their factors are zero. Without
    /// a rank it is the model as it was.
    ///
    /// # Errors
    /// An alpha that is not a positive number, a target that no layer of these parts has, or a layer whose width is no multiple of 4
    /// where it is to be quantised.
    pub fn with_lora(mut self, settings: &LoraSettings, parts: TrainableParts) -> Result<Self, ModelError> {
        if !settings.is_on() {
            return Ok(self);
        }
        if !(settings.alpha.is_finite() && settings.alpha > 0.0) {
            return Err(ModelError::Lora { reason: format!("alpha is {}: must be a positive number", settings.alpha) });
        }
        let mut layers = self.projections_mut();
        layers.retain(|layer| parts.has(layer.part));
        if layers.is_empty() {
            return Err(ModelError::Lora { reason: "no part learns: there is no layer to adapt".into() });
        }
        for target in &settings.targets {
            if !layers.iter().any(|layer| is_called(&layer.name, target)) {
                let mut names: Vec<&str> = layers.iter().map(|layer| layer.short_name()).collect();
                names.sort_unstable();
                names.dedup();
                let reason = format!("no layer that learns is called `{target}`; there are {}", names.join(", "));
                return Err(ModelError::Lora { reason });
            }
        }
        for layer in layers {
            if !settings.names(&layer.name) {
                continue;
            }
            let Layer { name, projection, .. } = layer;
            *projection = projection.clone().adapted(settings).ok_or_else(|| {
                let reason =
                    format!("`{name}` is {:?} wide, no multiple of 4: it cannot be quantised", projection.widths());
                ModelError::Lora { reason }
            })?;
        }
        Ok(self)
    }

    /// Whether any layer has an adapter.
    pub fn has_lora(&self) -> bool {
        self.named_parameters().iter().any(|parameter| parameter.adapter)
    }

    /// The model that computes the same without adapters: W + s·A·B in place of W, dense. It has no tape.
    pub fn merged(&self) -> Self {
        self.merged_in(None)
    }

    /// The same with weights under adapters stored as `dtype`.
    pub(crate) fn merged_in(&self, dtype: Option<DType>) -> Self {
        let mut model = self.valid();
        for Layer { projection, .. } in model.projections_mut() {
            if projection.lora.is_some() {
                let dtype = dtype.unwrap_or_else(|| projection.dtype());
                *projection = projection.clone().merged(dtype);
            }
        }
        model
    }
}
