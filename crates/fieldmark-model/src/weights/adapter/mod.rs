//! Adapters in PEFT's format: `adapter_config.json`, and `adapter_model.safetensors` with tensors such as
//! `base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight`.
//!
//! Reference: `LoraConfig`, `LoraLayer` and `set_peft_model_state_dict` of PEFT 0.21.

mod attach;
mod change;
mod complete;
mod config;
mod folder;
mod key;
mod merge;
mod plan;
mod planner;
mod save;
mod targets;

pub use folder::Adapter;
