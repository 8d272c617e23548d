//! The three parts of a model. Each is trained or frozen as a whole, and has one number format.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A part of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ModelPart {
    /// Patch embedding and blocks of the vision encoder.
    Vision,
    /// The merger between encoder and decoder.
    Projector,
    /// Embedding, blocks, norm and head.
    Decoder,
}

impl ModelPart {
    /// All parts, in the order of the forward pass.
    pub const ALL: [Self; 3] = [Self::Vision, Self::Projector, Self::Decoder];

    /// Returns the part of the parameter with this published name.
    pub fn of(published: &str) -> Self {
        if published.starts_with("visual.merger.") {
            Self::Projector
        } else if published.starts_with("visual.") {
            Self::Vision
        } else {
            Self::Decoder
        }
    }

    /// Returns the part's key in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vision => "vision",
            Self::Projector => "projector",
            Self::Decoder => "decoder",
        }
    }
}

/// Which parts of a model are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainableParts {
    /// Patch embedding and blocks of the vision encoder.
    pub vision: bool,
    /// The merger between encoder and decoder.
    pub projector: bool,
    /// Embedding, blocks, norm and head.
    pub decoder: bool,
}

impl Default for TrainableParts {
    fn default() -> Self {
        Self { vision: true, projector: true, decoder: true }
    }
}

impl TrainableParts {
    /// Returns true if `part` is trained.
    pub fn has(&self, part: ModelPart) -> bool {
        match part {
            ModelPart::Vision => self.vision,
            ModelPart::Projector => self.projector,
            ModelPart::Decoder => self.decoder,
        }
    }
}
