//! Qwen2.5-VL (`Qwen2_5_VLForConditionalGeneration` of transformers), native in Burn, and the text tower of SigLIP.
//!
//! The crate enables no backend: every constructor takes a [`burn::tensor::Device`].
//! Letters after the last underscore of a tensor's name are its axes: b batch, t sequence, h heads, d width, n rows.
//! So `x_btd` is `[batch, seq, width]`, and `x_nd` is `[rows, width]`.

pub mod attention;
mod block;
pub mod config;
mod error;
pub mod files;
mod grid;
pub mod host;
mod inputs;
mod lora;
mod mlp;
mod model;
mod norm;
mod parameters;
mod parts;
mod positions;
mod pretrained;
mod projection;
pub mod reading;
pub mod siglip;
mod sizes;
pub mod text;
pub mod vision;
mod weights;

pub use attention::{AttentionLayout, KvCache, LayerCache, attention_backward, rotary};
pub use block::AttentionBlock;
pub use config::{Qwen25VlConfig, TextConfig, VisionConfig, VisionTokens};
pub use error::ModelError;
pub use grid::GridThw;
pub use inputs::{ImageInputs, ModelInputs, Padding, Row};
pub use lora::{LoraSettings, Quantize};
pub use mlp::GatedMlp;
pub use model::{Qwen25Vl, Trace};
pub use parameters::{NamedParameter, new_layout, published_layout};
pub use parts::{ModelPart, TrainableParts};
pub use positions::{RopePosition, SequencePositions, TokenIndex, rope_positions};
pub use pretrained::{Pretrained, checkpoint_folder};
pub use projection::Projection;
pub use siglip::{SiglipTextConfig, SiglipTextModel};
pub use sizes::{AdapterCounts, AdapterSizes, Flops, ParameterCounts, PartFlops};
pub use weights::{Adapter, LoadOptions, PartTypes, SaveOptions, WeightType, checkpoint_files};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
