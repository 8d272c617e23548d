//! Which layers carry an adapter, and how the weights under adapters are kept.
//!
//! Reference: `LoraConfig` of PEFT. Its dropout is left out: Burn draws it from the device's own generator, which a run could
//! not repeat or resume.

use burn::tensor::quantization::{QuantScheme, QuantValue, ScaleDtype};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// Whether a layer's name ends in `target`, as PEFT matches `target_modules`.
pub(super) fn is_called(layer: &str, target: &str) -> bool {
    layer.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}
