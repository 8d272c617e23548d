//! Qwen2.5-VL, native in Burn: vision encoder, projector ("merger"), decoder, M-RoPE, KV cache, weights in and out; and
//! the text tower of SigLIP, whose cosines compare answers.
//!
//! Reference: `Qwen2_5_VLForConditionalGeneration` of transformers. The crate enables no backend: every constructor
//! takes a [`burn::tensor::Device`], and tensors stay on the device and in the type of what they are computed from.
//! Upper-case letters at the end of a tensor's name are its axes: B batch, T sequence, D width, N rows.

#![allow(non_snake_case)]

pub mod attention;
mod attention_backward;
mod attention_layout;
mod block;
mod cache;
pub mod config;
mod config_json;
mod counts;
mod error;
pub mod files;
mod flops;
mod grid;
mod inputs;
mod lora;
mod mlp;
mod model;
mod parts;
mod positions;
mod projection;
pub mod rotary;
pub mod siglip;
pub mod text;
pub mod vision;
mod weights;

pub use attention_backward::attention_backward;
pub use attention_layout::AttentionLayout;
pub use block::AttentionBlock;
pub use cache::{KvCache, LayerCache};
pub use config::{Qwen25VlConfig, TextConfig, VisionConfig, VisionTokens};
pub use counts::{AdapterCounts, ParameterCounts};
pub use error::ModelError;
pub use flops::{AdapterSizes, Flops, PartFlops};
pub use grid::GridThw;
pub use inputs::{ImageInputs, ModelInputs, Padding, Row};
pub use lora::{LoraSettings, Quantize};
pub use mlp::GatedMlp;
pub use model::{Qwen25Vl, Trace};
pub use parts::{Part, TrainableParts};
pub use positions::{RopePosition, SequencePositions, TokenIndex, rope_positions};
pub use projection::Projection;
pub use siglip::{SiglipTextConfig, SiglipTextModel};
pub use weights::{
    LoadOptions, NamedParameter, PartTypes, SaveOptions, StoredType, checkpoint_files, new_layout, published_layout,
};

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
