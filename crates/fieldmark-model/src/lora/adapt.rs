//! Adding adapters to a model and merging them into its weights.

use burn::{
    module::Module,
    tensor::{DType, Device},
};

use super::{
    layers::Layer,
    settings::{LoraSettings, Quantize, is_called},
};
use crate::{
    config::Qwen25VlConfig, error::ModelError, model::Qwen25Vl, parts::TrainableParts, projection::Projection,
};

impl Qwen25Vl {
    /// Adds adapters to the layers that `settings` name in the trained `parts`. Their factors are zero, so only
    /// quantisation, if `settings` ask for it, changes the results. With rank 0, returns the model unchanged.
    ///
    /// # Errors
    /// Returns [`ModelError::Lora`] if `alpha` is not a positive number, if these parts have no layer or none named
    /// like a target, if the rank is larger than every layer, or if a layer to be quantised has a width that is not a
    /// multiple of 4.
    pub fn with_lora(mut self, settings: &LoraSettings, parts: TrainableParts) -> Result<Self, ModelError> {
        if !settings.is_on() {
            return Ok(self);
        }
        self.check_lora(settings, parts)?;
        for layer in self.projections_mut() {
            if !(parts.has(layer.part) && settings.names(&layer.name)) {
                continue;
            }
            *layer.projection = layer.projection.clone().adapted(settings).ok_or_else(|| not_quantisable(&layer))?;
        }
        Ok(self)
    }

    /// Checks that `settings` name layers in the trained `parts`.
    fn check_lora(&mut self, settings: &LoraSettings, parts: TrainableParts) -> Result<(), ModelError> {
        if !(settings.alpha.is_finite() && settings.alpha > 0.0) {
            return Err(ModelError::Lora {
                reason: format!("alpha is {}: it must be a positive number", settings.alpha),
            });
        }
        let mut layers = self.projections_mut();
        layers.retain(|layer| parts.has(layer.part));
        if layers.is_empty() {
            return Err(ModelError::Lora {
                reason: "no part learns, so there is no layer to adapt; train at least one part".into(),
            });
        }
        let widest = layers.iter().flat_map(|layer| layer.projection.widths()).max().unwrap_or(0);
        if settings.rank > widest {
            let reason = format!("rank is {}, but no layer is wider than {widest}; lower it", settings.rank);
            return Err(ModelError::Lora { reason });
        }
        for target in &settings.targets {
            if !layers.iter().any(|layer| is_called(&layer.name, target)) {
                let mut names: Vec<&str> = layers.iter().map(|layer| layer.short_name()).collect();
                names.sort_unstable();
                names.dedup();
                let reason =
                    format!("no trained layer is called `{target}` (lora.targets); there are {}", names.join(", "));
                return Err(ModelError::Lora { reason });
            }
        }
        Ok(())
    }

    /// Returns true if any layer has an adapter.
    pub fn has_lora(&self) -> bool {
        self.named_parameters().iter().any(|parameter| parameter.adapter)
    }

    /// Returns a model without adapters that computes the same: W + s·A·B replaces W, dense. Autodiff does not track
    /// it.
    pub fn merged(&self) -> Self {
        self.merged_in(None)
    }

    /// Like [`Self::merged`], with the merged weights stored as `dtype`.
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

impl LoraSettings {
    /// Checks these settings for a model of `config` without its weights; `device` allocates nothing. With rank 0, there
    /// is nothing to check.
    ///
    /// # Errors
    /// Returns [`ModelError::Lora`] if `alpha` is not a positive number, or if the trained `parts` have no layer or
    /// none named like a target.
    pub fn check(&self, config: &Qwen25VlConfig, parts: TrainableParts, device: &Device) -> Result<(), ModelError> {
        // Burn allocates the parameters of a new model at first use, and here they are never used.
        if self.is_on() { config.init(device).check_lora(self, parts) } else { Ok(()) }
    }
}

/// The error about a layer whose weights cannot be quantised.
pub(crate) fn not_quantisable(layer: &Layer<'_>) -> ModelError {
    let (name, [_, width]) = (&layer.name, layer.projection.widths());
    let reason = format!(
        "`{name}` is {width} wide, and only multiples of 4 can be quantised; set `quantize` to none or leave this layer out of `targets`"
    );
    ModelError::Lora { reason }
}

impl Projection {
    /// Adds an adapter of zeros and quantises W if `settings` ask for it. Returns `None` if W cannot be quantised
    /// because its number of columns is not a multiple of 4.
    pub fn adapted(self, settings: &LoraSettings) -> Option<Self> {
        let columns = self.widths()[1];
        let adapted = self.with_lora(settings.rank, settings.scale());
        match settings.quantize {
            Quantize::None => Some(adapted),
            quantize => quantize.scheme(columns).map(|scheme| adapted.quantized(&scheme)),
        }
    }
}
