//! `config.json` of Qwen2.5-VL checkpoints, in the flat form of published checkpoints or the nested form of newer
//! tools.
//!
//! Flat: the decoder's keys at the top, `rope_scaling.mrope_section`, `vision_config.in_chans`. Nested: `text_config`
//! with `rope_parameters`, `vision_config.in_channels`. Files are written in the flat form, which every version reads.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    config::{MAX_POSITION_EMBEDDINGS, Qwen25VlConfig, TextConfig, VisionConfig, VisionTokens},
    error::ModelError,
};

#[derive(Deserialize)]
struct TextJson {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    #[serde(default = "silu")]
    hidden_act: String,
    rms_norm_eps: Option<f64>,
    max_position_embeddings: Option<usize>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeJson>,
    rope_parameters: Option<RopeJson>,
    #[serde(default)]
    use_sliding_window: bool,
}

#[derive(Deserialize)]
struct RopeJson {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    mrope_section: Option<[usize; 3]>,
    rope_theta: Option<f64>,
}

#[derive(Deserialize)]
struct VisionJson {
    depth: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_heads: usize,
    out_hidden_size: usize,
    window_size: usize,
    fullatt_block_indexes: Vec<usize>,
    #[serde(default = "silu")]
    hidden_act: String,
    in_channels: Option<usize>,
    in_chans: Option<usize>,
    patch_size: Option<usize>,
    spatial_merge_size: Option<usize>,
    temporal_patch_size: Option<usize>,
}

fn silu() -> String {
    "silu".into()
}

impl Qwen25VlConfig {
    /// Reads `config.json` in either form.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not a Qwen2.5-VL configuration, or has sizes that contradict
    /// each other.
    pub fn from_json_file(path: &Path) -> Result<Self, ModelError> {
        let text = std::fs::read_to_string(path).map_err(ModelError::io(path))?;
        let value: Value = serde_json::from_str(&text).map_err(|error| ModelError::Json {
            path: path.into(),
            what: "configuration",
            reason: error.to_string(),
        })?;
        Self::from_json(&value).map_err(|error| match error {
            ModelError::Config { key, reason } => ModelError::Json {
                path: path.into(),
                what: "Qwen2.5-VL configuration",
                reason: format!("`{key}` {reason}"),
            },
            other => other,
        })
    }

    /// Reads the contents of a `config.json` in either form.
    ///
    /// # Errors
    /// Returns [`ModelError::Config`] with the key at fault.
    pub fn from_json(json: &Value) -> Result<Self, ModelError> {
        let model_type = json.get("model_type").and_then(Value::as_str).unwrap_or("absent");
        if model_type != "qwen2_5_vl" {
            return Err(ModelError::config("model_type", format!("is {model_type}: only qwen2_5_vl is supported")));
        }
        let nested = json.get("text_config");
        let text_json = nested.unwrap_or(json);
        let t: TextJson = section(text_json, "text_config")?;
        let vision = json.get("vision_config").ok_or_else(|| ModelError::config("vision_config", "is missing"))?;
        let v: VisionJson = section(vision, "vision_config")?;

        for (key, act) in [("hidden_act", &t.hidden_act), ("vision_config.hidden_act", &v.hidden_act)] {
            if act != "silu" {
                return Err(ModelError::config(key, format!("is {act}: only silu is supported")));
            }
        }
        if t.use_sliding_window {
            return Err(ModelError::config("use_sliding_window", "is true: sliding-window attention is not supported"));
        }
        let rope = t.rope_parameters.or(t.rope_scaling);
        let rope =
            rope.ok_or_else(|| ModelError::config("rope_scaling", "is missing: it must contain mrope_section"))?;
        let kinds = [&rope.rope_type, &rope.kind].into_iter().flatten();
        if let Some(kind) = kinds.into_iter().find(|kind| !matches!(kind.as_str(), "mrope" | "default")) {
            return Err(ModelError::config("rope_scaling.type", format!("is {kind}: only mrope is supported")));
        }
        let mrope_section =
            rope.mrope_section.ok_or_else(|| ModelError::config("rope_scaling.mrope_section", "is missing"))?;
        let heads = t.num_attention_heads;
        if let Some(dim) = t.head_dim.filter(|dim| dim * heads != t.hidden_size) {
            return Err(ModelError::config(
                "head_dim",
                format!("is {dim}, but must equal hidden_size / num_attention_heads"),
            ));
        }

        let token = |key: &str| {
            let found = json.get(key).or_else(|| nested.and_then(|text| text.get(key)));
            found.and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok())
        };
        let needed = |key: &str, published: u32| match json.get(key) {
            None => Ok(published),
            Some(_) => token(key).ok_or_else(|| ModelError::config(key, "must be a token id")),
        };
        let tied = json.get("tie_word_embeddings").or_else(|| text_json.get("tie_word_embeddings"));
        let config = Self {
            text: TextConfig {
                vocab_size: t.vocab_size,
                hidden_size: t.hidden_size,
                intermediate_size: t.intermediate_size,
                num_hidden_layers: t.num_hidden_layers,
                num_attention_heads: heads,
                num_key_value_heads: t.num_key_value_heads.unwrap_or(heads),
                mrope_section,
                rope_theta: rope.rope_theta.or(t.rope_theta).unwrap_or(1e6),
                rms_norm_eps: t.rms_norm_eps.unwrap_or(1e-6),
                max_position_embeddings: t.max_position_embeddings.unwrap_or(MAX_POSITION_EMBEDDINGS),
            },
            vision: VisionConfig {
                depth: v.depth,
                hidden_size: v.hidden_size,
                intermediate_size: v.intermediate_size,
                num_heads: v.num_heads,
                out_hidden_size: v.out_hidden_size,
                window_size: v.window_size,
                fullatt_block_indexes: v.fullatt_block_indexes,
                in_channels: v.in_channels.or(v.in_chans).unwrap_or(3),
                patch_size: v.patch_size.unwrap_or(14),
                spatial_merge_size: v.spatial_merge_size.unwrap_or(2),
                temporal_patch_size: v.temporal_patch_size.unwrap_or(2),
            },
            vision_tokens: VisionTokens {
                image: needed("image_token_id", 151_655)?,
                video: needed("video_token_id", 151_656)?,
                start: needed("vision_start_token_id", 151_652)?,
                end: needed("vision_end_token_id", 151_653)?,
            },
            tie_word_embeddings: tied.and_then(Value::as_bool).unwrap_or(false),
            bos_token_id: token("bos_token_id"),
            eos_token_id: token("eos_token_id"),
        };
        config.validate()?;
        Ok(config)
    }

    /// Returns the contents of `config.json` in the flat form, which transformers reads. `torch_dtype` is the type of
    /// the stored weights.
    pub fn to_json(&self, torch_dtype: &str) -> Value {
        let (t, v, ids) = (&self.text, &self.vision, &self.vision_tokens);
        let vision = json!({
            "depth": v.depth,
            "fullatt_block_indexes": v.fullatt_block_indexes,
            "hidden_act": "silu",
            "hidden_size": v.hidden_size,
            "in_chans": v.in_channels,
            "in_channels": v.in_channels,
            "intermediate_size": v.intermediate_size,
            "num_heads": v.num_heads,
            "out_hidden_size": v.out_hidden_size,
            "patch_size": v.patch_size,
            "spatial_merge_size": v.spatial_merge_size,
            "spatial_patch_size": v.patch_size,
            "temporal_patch_size": v.temporal_patch_size,
            "tokens_per_second": 2,
            "window_size": v.window_size,
        });
        json!({
            "architectures": ["Qwen2_5_VLForConditionalGeneration"],
            "model_type": "qwen2_5_vl",
            "attention_dropout": 0.0,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            "vision_start_token_id": ids.start,
            "vision_end_token_id": ids.end,
            "image_token_id": ids.image,
            "video_token_id": ids.video,
            "hidden_act": "silu",
            "hidden_size": t.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": t.intermediate_size,
            "max_position_embeddings": t.max_position_embeddings,
            "max_window_layers": t.num_hidden_layers,
            "num_attention_heads": t.num_attention_heads,
            "num_hidden_layers": t.num_hidden_layers,
            "num_key_value_heads": t.num_key_value_heads,
            "rms_norm_eps": t.rms_norm_eps,
            "rope_theta": t.rope_theta,
            "rope_scaling": { "type": "mrope", "mrope_section": t.mrope_section },
            "sliding_window": t.max_position_embeddings,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": torch_dtype,
            "use_cache": true,
            "use_sliding_window": false,
            "vision_config": vision,
            "vocab_size": t.vocab_size,
        })
    }
}

fn section<T: serde::de::DeserializeOwned>(json: &Value, name: &str) -> Result<T, ModelError> {
    T::deserialize(json).map_err(|error| ModelError::config(name, format!("cannot be read: {error}")))
}
