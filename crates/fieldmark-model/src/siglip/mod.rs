//! The text tower of SigLIP (arXiv 2303.15343): its network, configuration and weights.

mod config;
mod layer;
mod load;
mod model;

pub use config::{HiddenAct, SiglipTextConfig};
pub use layer::{SiglipAttention, SiglipEncoderLayer, SiglipMlp};
pub use model::{SiglipEncoder, SiglipTextEmbeddings, SiglipTextModel, SiglipTextOutput};
