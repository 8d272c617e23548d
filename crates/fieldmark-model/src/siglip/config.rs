//! Sizes of a SigLIP text tower, read from `config.json` of a whole model (`text_config`) or of the tower alone.
//!
//! Reference: `SiglipTextConfig` of transformers. Published files omit keys that have the class's default, the value of
//! `google/siglip-base-patch16-256`.

use std::path::Path;

use burn::config::Config;
use serde::Deserialize;
use serde_json::Value;

use crate::error::ModelError;

/// The activation between the two layers of an MLP.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum HiddenAct {
    /// `gelu_pytorch_tanh`: GELU approximated with tanh.
    GeluTanh,
    /// `gelu`: exact GELU, with the error function.
    Gelu,
}

/// The sizes of a text tower. The defaults are the sizes of `google/siglip-base-patch16-256`.
#[derive(Config, Debug, PartialEq)]
pub struct SiglipTextConfig {
    /// Number of rows of the embedding.
    #[config(default = 32_000)]
    pub vocab_size: usize,
    /// Width of the residual stream.
    #[config(default = 768)]
    pub hidden_size: usize,
    /// Inner width of the MLP.
    #[config(default = 3072)]
    pub intermediate_size: usize,
    /// Number of layers.
    #[config(default = 12)]
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    #[config(default = 12)]
    pub num_attention_heads: usize,
    /// Number of tokens of every text: shorter texts are padded, longer ones are cut.
    #[config(default = 64)]
    pub max_position_embeddings: usize,
    /// Width of the pooled vector.
    #[config(default = 768)]
    pub projection_size: usize,
    /// Activation of the MLP.
    #[config(default = "HiddenAct::GeluTanh")]
    pub hidden_act: HiddenAct,
    /// Added to the variance in every norm.
    #[config(default = 1e-6)]
    pub layer_norm_eps: f64,
}

#[derive(Deserialize)]
struct TextJson {
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    max_position_embeddings: Option<usize>,
    projection_size: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
}

/// The `model_type` of whole models and of text towers. SigLIP 2 has the same text tower.
const MODEL_TYPES: [&str; 4] = ["siglip", "siglip_text_model", "siglip2", "siglip2_text_model"];

impl SiglipTextConfig {
    /// Reads the configuration of the text tower from a `config.json`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not a SigLIP configuration, or has sizes that contradict each
    /// other.
    pub fn from_json_file(path: &Path) -> Result<Self, ModelError> {
        let text = crate::reading::text(path)?;
        let failed = |reason| ModelError::Json { path: path.into(), what: "SigLIP configuration", reason };
        let json: Value = serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
        Self::from_json(&json).map_err(|error| match error {
            ModelError::Config { key, reason } => failed(format!("`{key}` {reason}")),
            other => other,
        })
    }

    /// Reads the configuration of the text tower from the contents of a `config.json`.
    ///
    /// # Errors
    /// Returns [`ModelError::Config`] with the key at fault.
    pub fn from_json(json: &Value) -> Result<Self, ModelError> {
        let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or("absent");
        if !MODEL_TYPES.contains(&model_type) {
            let known = MODEL_TYPES.join(", ");
            return Err(ModelError::config(
                "model_type",
                format!("is {model_type}, but a text encoder has one of {known}"),
            ));
        }
        let text = json.get("text_config").unwrap_or(json);
        let t = TextJson::deserialize(text).map_err(|error| ModelError::config("text_config", error.to_string()))?;
        let hidden_act = match t.hidden_act.as_deref() {
            None | Some("gelu_pytorch_tanh") => HiddenAct::GeluTanh,
            Some("gelu") => HiddenAct::Gelu,
            Some(other) => {
                let reason = format!("is {other}: only gelu_pytorch_tanh and gelu are supported");
                return Err(ModelError::config("hidden_act", reason));
            }
        };
        let base = Self::new();
        let hidden_size = t.hidden_size.unwrap_or(base.hidden_size);
        let config = Self {
            vocab_size: t.vocab_size.unwrap_or(base.vocab_size),
            hidden_size,
            intermediate_size: t.intermediate_size.unwrap_or(base.intermediate_size),
            num_hidden_layers: t.num_hidden_layers.unwrap_or(base.num_hidden_layers),
            num_attention_heads: t.num_attention_heads.unwrap_or(base.num_attention_heads),
            max_position_embeddings: t.max_position_embeddings.unwrap_or(base.max_position_embeddings),
            projection_size: t.projection_size.unwrap_or(hidden_size),
            hidden_act,
            layer_norm_eps: t.layer_norm_eps.unwrap_or(base.layer_norm_eps),
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// Returns [`ModelError::Config`] with the first key that does not fit.
    pub fn validate(&self) -> Result<(), ModelError> {
        let positive = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
            ("projection_size", self.projection_size),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(ModelError::config(key, "must be positive"));
        }
        let (heads, width) = (self.num_attention_heads, self.hidden_size);
        if !width.is_multiple_of(heads) {
            let reason = format!("is {heads}, which does not divide hidden_size {width}");
            return Err(ModelError::config("num_attention_heads", reason));
        }
        if !(self.layer_norm_eps.is_finite() && self.layer_norm_eps > 0.0) {
            return Err(ModelError::config("layer_norm_eps", "must be a positive number"));
        }
        Ok(())
    }

    /// Returns the number of parameters.
    pub fn parameter_count(&self) -> u64 {
        let [width, inner] = [self.hidden_size, self.intermediate_size].map(|size| size as u64);
        let linear = |from: u64, to: u64| from * to + to;
        let norm = 2 * width;
        let layer = 4 * linear(width, width) + linear(width, inner) + linear(inner, width) + 2 * norm;
        let embeddings = (self.vocab_size + self.max_position_embeddings) as u64 * width;
        embeddings + self.num_hidden_layers as u64 * layer + norm + linear(width, self.projection_size as u64)
    }
}
