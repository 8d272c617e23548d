//! A tiny checkpoint with its own tokenizer, for tests of whole runs.

use std::{fs, path::Path};

use fieldmark::processor::{QWEN2_5_VL_TEMPLATE, Tokenizer, train_tokenizer};
use serde_json::{Value, json};

/// Writes a checkpoint to `folder`: the reference's tiny random model with a small tokenizer.
pub fn checkpoint(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/qwen2_5_vl_tiny");
    for file in ["model.safetensors", "preprocessor_config.json"] {
        fs::copy(fixture.join(file), folder.join(file)).unwrap();
    }
    fs::write(folder.join("chat_template.jinja"), QWEN2_5_VL_TEMPLATE).unwrap();
    let tokenizer = tokenizer();
    fs::write(folder.join("tokenizer.json"), tokenizer.to_json().unwrap()).unwrap();
    let mut config: Value = serde_json::from_slice(&fs::read(fixture.join("config.json")).unwrap()).unwrap();
    let ids = tokenizer.vision_tokens();
    for (key, id) in [
        ("image_token_id", ids.image),
        ("video_token_id", ids.video),
        ("vision_start_token_id", ids.start),
        ("vision_end_token_id", ids.end),
        ("eos_token_id", tokenizer.eos()),
    ] {
        config[key] = json!(id);
    }
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let generation = json!({ "eos_token_id": [tokenizer.eos()], "repetition_penalty": 1.05 });
    fs::write(folder.join("generation_config.json"), generation.to_string()).unwrap();
}

/// Trains a tokenizer that fits into the tiny model's vocabulary of 320.
pub fn tokenizer() -> Tokenizer {
    let texts = ["<think>green</think> <answer>Lime</answer>", "Which fruit?", "You are a helpful assistant."];
    train_tokenizer(texts, &[], 320).unwrap()
}
