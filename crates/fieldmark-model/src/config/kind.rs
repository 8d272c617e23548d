//! Whether a `config.json` is one of a Qwen2.5-VL whose weights are not quantised.

use serde_json::Value;

use crate::error::ModelError;

/// Refuses another architecture and quantised weights, with the key that says so.
pub(super) fn check_kind(json: &Value) -> Result<(), ModelError> {
    if !json.is_object() {
        return Err(ModelError::config("model_type", "is missing: the file is not a JSON object"));
    }
    let is_ours = |kind: &str| kind == "qwen2_5_vl";
    match json.get("model_type").and_then(Value::as_str) {
        Some(kind) if is_ours(kind) => {}
        Some(kind) => {
            let what = match kind {
                "qwen2_vl" => " (Qwen2-VL)",
                "qwen3_vl" | "qwen3_vl_moe" => " (Qwen3-VL)",
                "qwen2_5_omni" => " (Qwen2.5-Omni)",
                "qwen2_5_vl_text" | "qwen2" | "qwen3" => ", a model of text alone",
                "siglip" | "siglip_text_model" | "siglip2" => " (SigLIP), which belongs in model.text_encoder",
                _ => "",
            };
            let reason = format!("is {kind}{what}: only qwen2_5_vl (Qwen2.5-VL) is supported");
            return Err(ModelError::config("model_type", reason));
        }
        None => {
            let architectures = json.get("architectures").and_then(Value::as_array).into_iter().flatten();
            let mut names = architectures.filter_map(Value::as_str);
            if !names.any(|name| name == "Qwen2_5_VLForConditionalGeneration") {
                return Err(ModelError::config("model_type", "is absent: only qwen2_5_vl is supported"));
            }
        }
    }
    for key in ["quantization_config", "quantization"] {
        let Some(settings) = json.get(key).and_then(Value::as_object).filter(|settings| !settings.is_empty()) else {
            continue;
        };
        let given = |name: &str| settings.get(name).and_then(Value::as_str);
        let by_flag = || {
            let bits = ["load_in_4bit", "load_in_8bit"];
            bits.iter().any(|flag| settings.get(*flag) == Some(&Value::Bool(true))).then_some("bitsandbytes")
        };
        let method = given("quant_method").or_else(|| given("quant_type")).or_else(by_flag).unwrap_or("unknown method");
        let reason = format!(
            "says that the weights are quantised ({method}), which is not supported: use the model that is not quantised; if \
             the weights are in f32, f16 or bf16, remove the key"
        );
        return Err(ModelError::config(key, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key_and_reason(json: Value) -> Option<(String, String)> {
        match check_kind(&json) {
            Ok(()) => None,
            Err(ModelError::Config { key, reason }) => Some((key, reason)),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn another_architecture_is_refused_by_its_name() {
        for (kind, name) in
            [("qwen3_vl", "Qwen3-VL"), ("qwen2_vl", "Qwen2-VL"), ("siglip", "model.text_encoder"), ("llava", "llava")]
        {
            let (key, reason) = key_and_reason(json!({ "model_type": kind })).unwrap();
            assert!(key == "model_type" && reason.contains(name) && reason.contains("qwen2_5_vl"), "{reason}");
        }
        let (key, _) = key_and_reason(json!({ "architectures": ["LlamaForCausalLM"] })).unwrap();
        assert_eq!(key, "model_type");
        assert_eq!(key_and_reason(json!([])).unwrap().0, "model_type");
        assert_eq!(key_and_reason(json!({ "architectures": ["Qwen2_5_VLForConditionalGeneration"] })), None);
    }

    #[test]
    fn quantised_weights_are_refused_by_their_method() {
        let with = |key: &str, settings: Value| key_and_reason(json!({ "model_type": "qwen2_5_vl", key: settings }));
        for (key, settings, method) in [
            ("quantization_config", json!({ "quant_method": "gptq", "bits": 4 }), "gptq"),
            ("quantization_config", json!({ "quant_method": "awq" }), "awq"),
            ("quantization_config", json!({ "load_in_4bit": true }), "bitsandbytes"),
            ("quantization", json!({ "group_size": 64, "bits": 4 }), "quantised"),
        ] {
            let (found, reason) = with(key, settings).unwrap();
            assert!(found == key && reason.contains(method), "{found}: {reason}");
        }
        for nothing in [Value::Null, json!({})] {
            assert_eq!(with("quantization_config", nothing), None);
        }
    }
}
