//! Lays an adapter beside the weights of its base, so that training goes on with it.

use std::collections::BTreeMap;

use burn::{
    module::Param,
    tensor::{Tensor, TensorData},
};

use super::{change::Factors, folder::Adapter, plan::Plan};
use crate::{
    error::ModelError,
    lora::{LoraSettings, Quantize, is_called, not_quantisable},
    model::Qwen25Vl,
    parts::TrainableParts,
    weights::checkpoint::CheckpointMap,
};

impl Adapter {
    /// Checks that training can go on with this adapter under `settings`.
    ///
    /// # Errors
    /// Returns an error that names the key if rank, alpha or `rslora` differ, or if the adapter is more than pairs of
    /// factors, which are all that is trained here.
    pub fn check_settings(&self, settings: &LoraSettings) -> Result<(), ModelError> {
        let config = &self.config;
        let refuse = |key: &str, value: String, reason: String| {
            Err(ModelError::adapter_setting(self.config_path(), key, value, &reason))
        };
        let differs = |ours: String, set: String| {
            format!("differs from {ours} of the run; set {set} to go on with this adapter, or lora.rank=0 to merge it")
        };
        let (rank, alpha, rslora) = (settings.rank, settings.alpha, settings.rslora);
        if config.rank != rank {
            let reason = differs(format!("lora.rank = {rank}"), format!("lora.rank={}", config.rank));
            return refuse("r", config.rank.to_string(), reason);
        }
        if config.alpha != alpha {
            let reason = differs(format!("lora.alpha = {alpha}"), format!("lora.alpha={}", config.alpha));
            return refuse("lora_alpha", config.alpha.to_string(), reason);
        }
        if config.rslora != rslora {
            let reason = differs(format!("lora.rslora = {rslora}"), format!("lora.rslora={}", config.rslora));
            return refuse("use_rslora", config.rslora.to_string(), reason);
        }
        self.check_trainable()
    }

    /// Refuses an adapter that is more than pairs of factors by its configuration.
    fn check_trainable(&self) -> Result<(), ModelError> {
        let config = &self.config;
        for (key, value) in [
            ("use_dora", config.dora.then(|| "true".to_owned())),
            ("lora_bias", config.lora_bias.then(|| "true".to_owned())),
            ("bias", (config.bias != "none").then(|| format!("{:?}", config.bias))),
            ("modules_to_save", (!config.targets.saved.is_empty()).then(|| format!("{:?}", config.targets.saved))),
            ("trainable_token_indices", (!config.tokens.is_empty()).then(|| format!("{:?}", config.tokens))),
        ] {
            if let Some(value) = value {
                let reason = format!("cannot be trained on; {MERGE}");
                return Err(ModelError::adapter_setting(self.config_path(), key, value, &reason));
            }
        }
        Ok(())
    }
}

const MERGE: &str = "set lora.rank=0 to merge the adapter into the weights";

impl Qwen25Vl {
    /// Adds an adapter, to compute with it or to train it. It replaces existing adapters.
    ///
    /// # Errors
    /// Returns an error if a file is damaged; if a tensor has no place, the wrong shape or no partner; if the adapter has
    /// more than pairs of factors of linear layers; or if a layer of the model already has an adapter but the folder has
    /// none for it.
    pub fn with_adapter(self, adapter: &Adapter) -> Result<Self, ModelError> {
        self.attached(adapter, &LoraSettings::default())
    }

    /// Adds an adapter with which a run goes on that trains `parts` with `settings`, and quantises the weights under it
    /// if they say so. `settings.targets` must be empty or name the adapter's layers.
    ///
    /// # Errors
    /// Returns the errors of [`Adapter::check_settings`] and [`Self::with_adapter`], and [`ModelError::Lora`] if the
    /// targets are others, if no layer of the adapter is in a trained part, or if a weight cannot be quantised.
    pub fn with_trained_adapter(
        self,
        adapter: &Adapter,
        settings: &LoraSettings,
        parts: TrainableParts,
    ) -> Result<Self, ModelError> {
        adapter.check_settings(settings)?;
        let mut model = self.attached(adapter, settings)?;
        let mut layers = model.projections_mut();
        layers.retain(|layer| layer.projection.lora.is_some());
        let refuse = |reason: String| Err(ModelError::Lora { reason });
        let missing = settings.targets.iter().find(|target| !layers.iter().any(|layer| is_called(&layer.name, target)));
        if let Some(target) = missing {
            return refuse(format!(
                "the adapter in {} has no layer called `{target}`; leave lora.targets empty to train its own layers",
                adapter.folder().display()
            ));
        }
        if let Some(layer) = layers.iter().find(|layer| !settings.names(&layer.name)) {
            return refuse(format!(
                "the adapter in {} has the layer `{}`, which lora.targets does not name; leave lora.targets empty to \
                 train all of its layers",
                adapter.folder().display(),
                layer.name
            ));
        }
        if !layers.iter().any(|layer| parts.has(layer.part)) {
            return refuse(format!(
                "no layer of the adapter in {} is in a part that learns; train the part that it is in",
                adapter.folder().display()
            ));
        }
        Ok(model)
    }

    fn attached(mut self, adapter: &Adapter, settings: &LoraSettings) -> Result<Self, ModelError> {
        adapter.check_trainable()?;
        let path = adapter.weights_path();
        let files = CheckpointMap::open(&path)?;
        let Plan { mut changes, .. } = Plan::new(adapter, files.tensors(str::to_owned)?, &self)?;
        for change in changes.values() {
            if let Some(found) = change.other() {
                return Err(
                    found.refuse(format!("is no factor of a linear layer, so it cannot be trained on; {MERGE}"))
                );
            }
        }
        let mut factors: BTreeMap<String, Factors<'_>> = BTreeMap::new();
        for (name, change) in std::mem::take(&mut changes) {
            factors.extend(change.factors.map(|pair| (name, pair)));
        }
        for layer in self.projections_mut() {
            let Some(pair) = factors.remove(&format!("{}.weight", layer.name)) else {
                if layer.projection.lora.is_some() {
                    let first = format!("{}.lora_A.weight", layer.name);
                    return Err(ModelError::MissingTensors { path, first, count: 1 });
                }
                continue;
            };
            let [a, b] = pair.matrices(layer.projection.widths())?;
            let quantised = match settings.quantize {
                Quantize::None => layer.projection.clone(),
                _ => layer.projection.clone().adapted(settings).ok_or_else(|| not_quantisable(&layer))?,
            };
            let mut adapted = quantised.with_lora(pair.rank, pair.scale);
            if let Some(lora) = &mut adapted.lora {
                lora.a = filled(&lora.a, a);
                lora.b = filled(&lora.b, b);
            }
            *layer.projection = adapted;
        }
        match factors.values().next() {
            Some(pair) => {
                Err(pair.a.refuse(format!("is not of a linear layer that can be trained with an adapter; {MERGE}")))
            }
            None => Ok(self),
        }
    }
}

/// Returns a parameter with the values of `data`, on the device and in the type of `param`.
fn filled(param: &Param<Tensor<2>>, data: TensorData) -> Param<Tensor<2>> {
    Param::from_tensor(Tensor::from_data(data, (&param.device(), param.dtype())))
}
