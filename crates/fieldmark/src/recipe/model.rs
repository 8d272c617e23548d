//! `[model]`: the checkpoint that a run starts from, and its number formats.

use std::{fmt, path::PathBuf, str::FromStr};

use burn::tensor::FloatDType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number format of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, 5 of them exponent.
    F16,
    /// 16 bits, 8 of them exponent: the format of the published checkpoints.
    Bf16,
}

impl WeightType {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// The name in recipes and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Burn's type of the same format.
    pub fn float_dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::F16 => FloatDType::F16,
            Self::Bf16 => FloatDType::BF16,
        }
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for WeightType {
    type Err = UnknownWeightType;

    fn from_str(text: &str) -> Result<Self, UnknownWeightType> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| UnknownWeightType(text.into()))
    }
}

/// A name that is not a number format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number format; the formats are f32, f16 and bf16")]
pub struct UnknownWeightType(pub String);

/// The checkpoint that a run starts from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSection {
    /// Checkpoint folder with `config.json`, weights, tokenizer and processor configuration.
    pub path: Option<PathBuf>,
    /// Checkpoint folder of SigLIP with `config.json`, weights and `tokenizer.json`; the paper uses
    /// google/siglip-base-patch16-256. Needed if `tapo.rewards` contains `semantic`, the cosine similarity of answer and
    /// ground truth. Only the text tower is read; it computes in f32 on the first device.
    pub text_encoder: Option<PathBuf>,
    /// Number format to compute in. The device must support it: see `fieldmark devices`. Training needs f32, or bf16
    /// with `adamw.half` set to "master" or "kahan": an update of 1e-6 is lost when a 16-bit weight is rounded.
    pub dtype: WeightType,
    /// Number formats of single parts of the model. A part that is not listed uses `dtype`.
    pub parts: PartsSection,
    /// Number format of the checkpoints that a run writes.
    pub stored: WeightType,
}

/// Number formats of the parts of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PartsSection {
    /// Vision encoder: patch embedding and blocks.
    pub vision: Option<WeightType>,
    /// Projector (the merger between encoder and decoder).
    pub projector: Option<WeightType>,
    /// Decoder: embedding, blocks, norm and head.
    pub decoder: Option<WeightType>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_has_one_name_everywhere() {
        for kind in WeightType::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert_eq!("F32".parse::<WeightType>(), Err(UnknownWeightType("F32".into())));
    }
}
