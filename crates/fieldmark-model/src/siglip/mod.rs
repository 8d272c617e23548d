//! The text tower of SigLIP.

mod config;
mod layer;
mod load;
mod model;

pub use config::{HiddenAct, SiglipTextConfig};
pub use layer::{SiglipAttention, SiglipEncoderLayer, SiglipMlp};
pub use model::{SiglipEncoder, SiglipTextEmbeddings, SiglipTextModel, SiglipTextOutput};
