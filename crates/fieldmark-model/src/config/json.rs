//! `config.json` of Qwen2.5-VL checkpoints, in the flat form of published checkpoints or the nested form of newer
//! tools.
//!
//! Flat: the decoder's keys at the top, `rope_scaling.mrope_section`, `vision_config.in_chans`. Nested: `text_config`
//! with `rope_parameters`, `vision_config.in_channels`. Files are written in the flat form, which every version reads.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    kind::check_kind,
    sizes::{MAX_POSITION_EMBEDDINGS, Qwen25VlConfig, TextConfig, VisionConfig, VisionTokens},
};
use crate::{error::ModelError, reading};

/// The decoder's keys, with the defaults of `Qwen2_5_VLTextConfig`. A key that is `null` is as good as absent.
#[derive(Deserialize)]
struct TextJson {
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    /// Absent: 8. `null`: the number of query heads.
    #[serde(default = "eight_heads")]
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    rms_norm_eps: Option<f64>,
    max_position_embeddings: Option<usize>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RopeJson>,
    rope_parameters: Option<RopeJson>,
    use_sliding_window: Option<bool>,
    max_window_layers: Option<usize>,
    layer_types: Option<Vec<String>>,
}

/// The keys that say how large the decoder is and what it computes.
const TEXT_KEYS: [&str; 11] = [
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "rms_norm_eps",
    "max_position_embeddings",
    "rope_theta",
    "use_sliding_window",
];

#[derive(Deserialize, Default)]
struct RopeJson {
    rope_type: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    mrope_section: Option<[usize; 3]>,
    rope_theta: Option<f64>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl RopeJson {
    /// The reference passes over an empty object.
    fn is_empty(&self) -> bool {
        let Self { rope_type, kind, mrope_section, rope_theta, rest } = self;
        rope_type.is_none() && kind.is_none() && mrope_section.is_none() && rope_theta.is_none() && rest.is_empty()
    }
}

/// The encoder's keys, with the defaults of `Qwen2_5_VLVisionConfig`.
#[derive(Deserialize, Default)]
struct VisionJson {
    depth: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_heads: Option<usize>,
    out_hidden_size: Option<usize>,
    window_size: Option<usize>,
    fullatt_block_indexes: Option<Vec<usize>>,
    hidden_act: Option<String>,
    in_channels: Option<usize>,
    in_chans: Option<usize>,
    patch_size: Option<Side>,
    spatial_merge_size: Option<usize>,
    temporal_patch_size: Option<Side>,
}

/// A length, alone or once for each side.
#[derive(Deserialize)]
#[serde(untagged)]
enum Side {
    One(usize),
    Each(Vec<usize>),
}

impl Side {
    fn length(this: Option<&Self>, key: &str, default: usize) -> Result<usize, ModelError> {
        match this {
            None => Ok(default),
            Some(Self::One(length)) => Ok(*length),
            Some(Self::Each(all)) => match all.split_first() {
                Some((first, rest)) if rest.iter().all(|other| other == first) => Ok(*first),
                _ => Err(ModelError::config(key, format!("is {all:?}: only equal sides are supported"))),
            },
        }
    }
}

fn eight_heads() -> Option<usize> {
    Some(8)
}

impl Qwen25VlConfig {
    /// Reads `config.json` in either form. Keys that are absent or `null` have the reference's defaults.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not a Qwen2.5-VL configuration, or has sizes that contradict
    /// each other.
    pub fn from_json_file(path: &Path) -> Result<Self, ModelError> {
        Self::from_json(&reading::json(path, "configuration")?).map_err(|error| error.in_file(path))
    }

    /// Reads the contents of a `config.json` in either form.
    ///
    /// # Errors
    /// Returns [`ModelError::Config`] with the key at fault.
    pub fn from_json(json: &Value) -> Result<Self, ModelError> {
        check_kind(json)?;
        let nested = object(json, "text_config");
        let text_json = nested.unwrap_or(json);
        let t: TextJson = section(text_json, "text_config")?;
        let v: VisionJson = match object(json, "vision_config") {
            Some(vision) => section(vision, "vision_config")?,
            None => VisionJson::default(),
        };

        for (key, act) in [("hidden_act", &t.hidden_act), ("vision_config.hidden_act", &v.hidden_act)] {
            if let Some(act) = act.as_ref().filter(|act| *act != "silu") {
                return Err(ModelError::config(key, format!("is {act}: only silu is supported")));
            }
        }
        let layers = t.num_hidden_layers.unwrap_or(80);
        let some_slide = match &t.layer_types {
            Some(types) => types.iter().any(|kind| kind != "full_attention"),
            None => t.max_window_layers.unwrap_or(80) < layers,
        };
        if t.use_sliding_window == Some(true) && some_slide {
            return Err(ModelError::config("use_sliding_window", "is true: sliding-window attention is not supported"));
        }
        let rope = [t.rope_scaling, t.rope_parameters].into_iter().flatten().find(|rope| !rope.is_empty());
        let rope = rope.unwrap_or_default();
        let kinds = [&rope.rope_type, &rope.kind].into_iter().flatten();
        if let Some(kind) = kinds.into_iter().find(|kind| !matches!(kind.as_str(), "mrope" | "default")) {
            return Err(ModelError::config("rope_scaling.type", format!("is {kind}: only mrope is supported")));
        }
        let (heads, width) = (t.num_attention_heads.unwrap_or(64), t.hidden_size.unwrap_or(8192));
        if let Some(dim) = t.head_dim.filter(|dim| dim * heads != width) {
            return Err(ModelError::config(
                "head_dim",
                format!("is {dim}, but must equal hidden_size / num_attention_heads"),
            ));
        }

        let depth = v.depth.unwrap_or(32);
        // The reference passes over the blocks of its default list that a shallower encoder does not have.
        let usual = || [7, 15, 23, 31].into_iter().filter(|&block| block < depth).collect();
        let full_attention = v.fullatt_block_indexes.unwrap_or_else(usual);

        let find = |key: &str| {
            let given = |json: &'_ Value| json.get(key).filter(|value| !value.is_null()).cloned();
            given(json).or_else(|| nested.and_then(given))
        };
        let tokens = |key: &str| match find(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => list.iter().map(|id| token(key, id)).collect(),
            Some(one) => Ok(vec![token(key, &one)?]),
        };
        let vision_token = |key: &str, published: u32| find(key).map_or(Ok(published), |id| token(key, &id));
        let tied = |json: &Value| json.get("tie_word_embeddings").and_then(Value::as_bool) == Some(true);
        let config = Self {
            text: TextConfig {
                vocab_size: t.vocab_size.unwrap_or(152_064),
                hidden_size: width,
                intermediate_size: t.intermediate_size.unwrap_or(29_568),
                num_hidden_layers: layers,
                num_attention_heads: heads,
                num_key_value_heads: t.num_key_value_heads.unwrap_or(heads),
                mrope_section: rope.mrope_section.unwrap_or([16, 24, 24]),
                rope_theta: rope.rope_theta.or(t.rope_theta).unwrap_or(1e6),
                rms_norm_eps: t.rms_norm_eps.unwrap_or(1e-5),
                max_position_embeddings: t.max_position_embeddings.unwrap_or(MAX_POSITION_EMBEDDINGS),
            },
            vision: VisionConfig {
                depth,
                hidden_size: v.hidden_size.unwrap_or(3584),
                intermediate_size: v.intermediate_size.unwrap_or(3420),
                num_heads: v.num_heads.unwrap_or(16),
                out_hidden_size: v.out_hidden_size.unwrap_or(3584),
                window_size: v.window_size.unwrap_or(112),
                fullatt_block_indexes: full_attention,
                in_channels: v.in_channels.or(v.in_chans).unwrap_or(3),
                patch_size: Side::length(v.patch_size.as_ref(), "vision_config.patch_size", 14)?,
                spatial_merge_size: v.spatial_merge_size.unwrap_or(2),
                temporal_patch_size: Side::length(
                    v.temporal_patch_size.as_ref(),
                    "vision_config.temporal_patch_size",
                    2,
                )?,
            },
            vision_tokens: VisionTokens {
                image: vision_token("image_token_id", 151_655)?,
                video: vision_token("video_token_id", 151_656)?,
                start: vision_token("vision_start_token_id", 151_652)?,
                end: vision_token("vision_end_token_id", 151_653)?,
            },
            tie_word_embeddings: tied(json) || nested.is_some_and(tied),
            bos_token_id: tokens("bos_token_id")?.first().copied(),
            eos_token_ids: tokens("eos_token_id")?,
        };
        config.validate()?;
        Ok(config)
    }

    /// Returns what a `config.json` says twice and differently, and which of the two counts, as in the reference.
    pub(crate) fn contradictions(json: &Value) -> Vec<String> {
        let mut notes = Vec::new();
        if json.get("model_type").is_none_or(Value::is_null) {
            notes.push("`model_type` is missing; it is read as qwen2_5_vl, as `architectures` says".into());
        }
        let Some(nested) = object(json, "text_config") else { return notes };
        let given = |json: &'_ Value, key: &str| json.get(key).filter(|value| !value.is_null()).cloned();
        for key in TEXT_KEYS {
            if let (Some(top), Some(inner)) = (given(json, key), given(nested, key))
                && top != inner
            {
                notes.push(format!("`{key}` is {top} and in text_config {inner}; the one in text_config counts"));
            }
        }
        let tied = |json: &Value| json.get("tie_word_embeddings").and_then(Value::as_bool);
        if let (Some(top), Some(inner)) = (tied(json), tied(nested))
            && top != inner
        {
            notes.push(format!("`tie_word_embeddings` is {top} and in text_config {inner}; it counts as true"));
        }
        notes
    }

    /// Returns the contents of `config.json` in the flat form, which transformers reads. `dtype` is the type of the stored
    /// weights; it stands under both names, the one of transformers 4 and the one of transformers 5.
    pub fn to_json(&self, dtype: &str) -> Value {
        let (t, v, ids) = (&self.text, &self.vision, &self.vision_tokens);
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
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
            "eos_token_id": eos,
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
            "dtype": dtype,
            "torch_dtype": dtype,
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

/// Returns the object under `key`, unless it is absent or `null`.
fn object<'a>(json: &'a Value, key: &str) -> Option<&'a Value> {
    json.get(key).filter(|value| !value.is_null())
}

fn token(key: &str, id: &Value) -> Result<u32, ModelError> {
    let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| ModelError::config(key, "must be a token id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A decoder and an encoder that fit each other, everything else left to the defaults.
    fn small() -> Value {
        json!({
            "model_type": "qwen2_5_vl",
            "vocab_size": 40, "hidden_size": 256, "intermediate_size": 24, "num_hidden_layers": 2,
            "num_attention_heads": 16, "image_token_id": 6, "video_token_id": 7, "vision_start_token_id": 3,
            "vision_end_token_id": 4, "rope_scaling": { "type": "mrope", "mrope_section": [2, 3, 3] },
            "vision_config": { "depth": 10, "hidden_size": 128, "intermediate_size": 20, "out_hidden_size": 256 },
        })
    }

    fn read(json: &Value) -> Qwen25VlConfig {
        Qwen25VlConfig::from_json(json).unwrap()
    }

    /// The values are those that transformers 5.24 gives to the same file.
    #[test]
    fn what_is_left_out_or_null_has_the_defaults_of_the_reference() {
        let config = read(&small());
        let (text, vision) = (&config.text, &config.vision);
        assert_eq!((text.num_key_value_heads, text.max_position_embeddings), (8, 32_768));
        assert_eq!((text.rms_norm_eps, text.rope_theta), (1e-5, 1e6));
        assert_eq!(
            (vision.num_heads, vision.window_size, vision.fullatt_block_indexes.as_slice()),
            (16, 112, &[7][..])
        );
        assert_eq!((vision.in_channels, vision.patch_size, vision.spatial_merge_size), (3, 14, 2));
        assert_eq!((vision.temporal_patch_size, config.tie_word_embeddings), (2, false));
        assert_eq!((config.bos_token_id, config.eos_token_ids.as_slice()), (None, &[][..]));
        let mut json = small();
        for key in [
            "rms_norm_eps",
            "max_position_embeddings",
            "rope_theta",
            "rope_parameters",
            "use_sliding_window",
            "hidden_act",
            "layer_types",
            "text_config",
            "tie_word_embeddings",
            "eos_token_id",
            "bos_token_id",
            "quantization_config",
        ] {
            json[key] = Value::Null;
        }
        for key in ["num_heads", "window_size", "fullatt_block_indexes", "in_channels", "patch_size", "hidden_act"] {
            json["vision_config"][key] = Value::Null;
        }
        assert_eq!(read(&json), config);
        // The one key whose `null` is not its default: as many heads for keys as for queries.
        json["num_key_value_heads"] = Value::Null;
        assert_eq!(read(&json).text.num_key_value_heads, 16);
        json["rope_scaling"] = json!({ "type": "default" });
        json["hidden_size"] = json!(2048);
        json["vision_config"]["out_hidden_size"] = json!(2048);
        assert_eq!(read(&json).text.mrope_section, [16, 24, 24]);
    }

    #[test]
    fn a_nested_file_says_the_same_and_counts_where_both_forms_differ() {
        let flat = small();
        let mut text = flat.as_object().unwrap().clone();
        text.retain(|key, _| TEXT_KEYS.contains(&key.as_str()));
        let mut nested = flat.clone();
        nested.as_object_mut().unwrap().retain(|key, _| !TEXT_KEYS.contains(&key.as_str()) && key != "rope_scaling");
        nested["text_config"] = text.into();
        nested["text_config"]["rope_parameters"] =
            json!({ "rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 5e5 });
        nested["text_config"]["eos_token_id"] = json!([5, 6]);
        let config = read(&nested);
        assert_eq!((config.text.rope_theta, config.eos_token_ids.as_slice()), (5e5, &[5, 6][..]));
        assert_eq!(TextConfig { rope_theta: 1e6, ..config.text }, read(&flat).text);
        assert_eq!(Qwen25VlConfig::contradictions(&nested), Vec::<String>::new());

        nested["vocab_size"] = json!(10);
        nested["tie_word_embeddings"] = json!(false);
        nested["text_config"]["tie_word_embeddings"] = json!(true);
        let config = read(&nested);
        assert_eq!((config.text.vocab_size, config.tie_word_embeddings), (40, true));
        let notes = Qwen25VlConfig::contradictions(&nested);
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].contains("`vocab_size`") && notes[0].contains("10") && notes[0].contains("40"), "{notes:?}");
        assert!(notes[1].contains("`tie_word_embeddings`"), "{notes:?}");
    }

    #[test]
    fn what_the_network_does_not_do_is_refused_by_its_key() {
        for (key, value) in [
            ("rope_scaling", json!({ "type": "yarn", "factor": 4.0, "mrope_section": [2, 3, 3] })),
            ("use_sliding_window", json!(true)),
            ("hidden_act", json!("gelu")),
            ("eos_token_id", json!("<|im_end|>")),
        ] {
            let mut json = small();
            json["max_window_layers"] = json!(1);
            json[key] = value;
            let error = Qwen25VlConfig::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}")), "{error}");
        }
        // Windows that no layer slides are no windows.
        let mut json = small();
        json["use_sliding_window"] = json!(true);
        assert_eq!(read(&json), read(&small()));
        json["vision_config"]["patch_size"] = json!([14, 14]);
        assert_eq!(read(&json), read(&small()));
        json["vision_config"]["patch_size"] = json!([14, 7]);
        let error = Qwen25VlConfig::from_json(&json).unwrap_err().to_string();
        assert!(error.contains("`vision_config.patch_size`"), "{error}");
    }
}
