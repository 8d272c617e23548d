//! The number formats of the parts of a model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::weight_type::WeightType;
use crate::parts::ModelPart;

/// Number formats of the parts of a model. A part that is not listed uses the model's `dtype`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PartTypes {
    /// Vision encoder: patch embedding and blocks.
    pub vision: Option<WeightType>,
    /// Projector (the merger between encoder and decoder).
    pub projector: Option<WeightType>,
    /// Decoder: embedding, blocks, norm and head.
    pub decoder: Option<WeightType>,
}

impl PartTypes {
    pub(super) fn of(&self, published: &str) -> Option<WeightType> {
        match ModelPart::of(published) {
            ModelPart::Vision => self.vision,
            ModelPart::Projector => self.projector,
            ModelPart::Decoder => self.decoder,
        }
    }
}
