//! Low-rank adapters on a model: which layers get one, what then learns, and the model with them merged.
//!
//! Reference: `LoraConfig` of PEFT. Its dropout is left out: Burn draws it from the device's own generator, which a run could
//! not repeat or resume.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{
        DType, Tensor,
        quantization::{QuantScheme, QuantValue, ScaleDtype},
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    error::ModelError,
    model::Qwen25Vl,
    parts::{Part, TrainableParts},
    projection::Projection,
    weights::ParamPath,
};

/// Adapters to train instead of the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoraSettings {
    /// Columns of A and rows of B. 0 trains the weights themselves.
    pub rank: usize,
    /// The adapter's product is multiplied by alpha / rank.
    pub alpha: f64,
    /// Multiply by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732).
    pub rslora: bool,
    /// Names of the linear layers that get an adapter, such as `q_proj` or `mlp.0`, in the parts that `train` lets learn.
    /// None stands for all of them; the head never has one.
    pub targets: Vec<String>,
    /// How the weights under the adapters are kept.
    pub quantize: Quantize,
}

impl Default for LoraSettings {
    fn default() -> Self {
        Self { rank: 0, alpha: 16.0, rslora: false, targets: Vec::new(), quantize: Quantize::None }
    }
}

/// How the weights under adapters are kept (QLoRA).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quantize {
    /// As they are computed in.
    #[default]
    None,
    /// 8 bits a weight, and an f32 scale for up to 64 of them; made dense again at each use.
    Q8,
    /// 4 bits a weight, and an f32 scale for up to 64 of them; on the CPU a weight still takes a byte.
    Q4,
}

impl Quantize {
    /// The scheme for a matrix of `columns` columns: blocks along a row. `None` for no quantisation.
    pub(crate) fn scheme(self, columns: usize) -> Option<QuantScheme> {
        let value = match self {
            Self::None => return None,
            Self::Q8 => QuantValue::Q8S,
            Self::Q4 => QuantValue::Q4S,
        };
        let block = [64, 32, 16, 8, 4].into_iter().find(|&block| columns.is_multiple_of(usize::from(block)))?;
        Some(QuantScheme::default().with_value(value).per_block([block], ScaleDtype::F32))
    }
}

impl LoraSettings {
    /// What the product of the factors is multiplied by.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Whether the layer called `layer`, or by the end of its name, is one that gets an adapter.
    pub(crate) fn names(&self, layer: &str) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|target| is_called(layer, target))
    }

    /// Bytes of a weight under an adapter that is computed with in `number` bytes.
    pub fn weight_bytes(&self, number: f64) -> f64 {
        let scales = 4.0 / 64.0;
        match self.quantize {
            Quantize::None => number,
            Quantize::Q8 => 1.0 + scales,
            Quantize::Q4 => 0.5 + scales,
        }
    }

    /// Whether there are adapters at all.
    pub fn is_on(&self) -> bool {
        self.rank > 0
    }
}

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

    /// Makes the parts named trainable and freezes the others. Of parts with adapters these alone learn.
    pub fn with_trainable(self, parts: TrainableParts) -> Self {
        let lora = self.has_lora();
        self.map(&mut Freezer { parts, lora, path: ParamPath::default() })
    }

    /// Every linear layer that may have an adapter.
    pub(crate) fn projections_mut(&mut self) -> Vec<Layer<'_>> {
        let mut layers = Vec::new();
        let mut add = |part, name: String, projection| layers.push(Layer { part, name, projection });
        for (i, block) in self.visual.blocks.iter_mut().enumerate() {
            for (name, projection) in block.projections_mut() {
                add(Part::Vision, format!("visual.blocks.{i}.{name}"), projection);
            }
        }
        let merger = &mut self.visual.merger;
        for (name, projection) in [("mlp.0", &mut merger.fc1), ("mlp.2", &mut merger.fc2)] {
            add(Part::Projector, format!("visual.merger.{name}"), projection);
        }
        for (i, block) in self.model.layers.iter_mut().enumerate() {
            for (name, projection) in block.projections_mut() {
                add(Part::Decoder, format!("model.layers.{i}.{name}"), projection);
            }
        }
        layers
    }
}

/// A linear layer and where it is.
pub(crate) struct Layer<'a> {
    pub(crate) part: Part,
    /// Published name, such as `model.layers.0.self_attn.q_proj`.
    pub(crate) name: String,
    pub(crate) projection: &'a mut Projection,
}

impl Layer<'_> {
    /// What a target would call it.
    pub(crate) fn short_name(&self) -> &str {
        match self.part {
            Part::Projector => self.name.trim_start_matches("visual.merger."),
            _ => self.name.rsplit('.').next().unwrap_or(&self.name),
        }
    }
}

/// Whether a layer's name ends in `target`, as PEFT matches `target_modules`.
fn is_called(layer: &str, target: &str) -> bool {
    layer.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

struct Freezer {
    parts: TrainableParts,
    lora: bool,
    path: ParamPath,
}

impl ModuleMapper for Freezer {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let learns = self.parts.has(Part::of(&self.path.published())) && self.lora == self.path.is_lora();
        param.set_require_grad(learns)
    }
}
