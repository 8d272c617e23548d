//! Settings of adapters: their rank and scale, which layers have one, and whether the weights under them are quantised.
//!
//! Reference: `LoraConfig` of PEFT, without its dropout. Burn draws dropout from the device's random generator, so a
//! run could not be repeated or resumed.

use burn::tensor::quantization::{QuantScheme, QuantValue, ScaleDtype};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Low-rank adapters (LoRA) to train instead of the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoraSettings {
    /// Number of columns of A and rows of B. 0 trains the weights themselves.
    pub rank: usize,
    /// The product A·B is multiplied by alpha / rank.
    pub alpha: f64,
    /// Multiply by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732).
    pub rslora: bool,
    /// Names of the linear layers that have an adapter, such as `q_proj` or `mlp.0`, in the parts that `train` enables.
    /// An empty list means all of them. The head never has an adapter.
    pub targets: Vec<String>,
    /// Quantisation of the weights under the adapters.
    pub quantize: Quantize,
}

impl Default for LoraSettings {
    fn default() -> Self {
        Self { rank: 0, alpha: 16.0, rslora: false, targets: Vec::new(), quantize: Quantize::None }
    }
}

/// Quantisation of the weights under adapters (QLoRA).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quantize {
    /// Weights keep the number format that the model computes in.
    #[default]
    None,
    /// 8 bits a weight, and an f32 scale for up to 64 weights; dequantised at each use.
    Q8,
    /// 4 bits a weight, and an f32 scale for up to 64 weights. On the CPU a weight still takes a byte.
    Q4,
}

impl Quantize {
    /// Returns the scheme for a matrix with `columns` columns, in blocks along a row. Returns `None` without
    /// quantisation, or if the number of columns is not a multiple of 4.
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
    /// Returns the factor applied to the product A·B.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Returns true if `layer` has an adapter: its name, or the end of its name, is a target.
    pub(crate) fn names(&self, layer: &str) -> bool {
        self.targets.is_empty() || self.targets.iter().any(|target| is_called(layer, target))
    }

    /// Returns the bytes of a weight under an adapter. `number` is the size in bytes of the format that the model
    /// computes in.
    pub fn weight_bytes(&self, number: f64) -> f64 {
        let scales = 4.0 / 64.0;
        match self.quantize {
            Quantize::None => number,
            Quantize::Q8 => 1.0 + scales,
            Quantize::Q4 => 0.5 + scales,
        }
    }

    /// Returns true if there are adapters.
    pub fn is_on(&self) -> bool {
        self.rank > 0
    }
}

/// Returns true if the layer's name is `target` or ends in it, as PEFT matches `target_modules`.
pub(crate) fn is_called(layer: &str, target: &str) -> bool {
    layer.strip_suffix(target).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}
