//! The SigLIP tokenizer and text tower, against ids and states that transformers made of the same files.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use fieldmark::{
    model::{ModelError, SiglipTextConfig, SiglipTextModel},
    processor::{ProcessorError, SiglipEmbedder, SiglipTokenizer, TextEmbedder, cosine},
};
use fieldmark_tests::prompts::{distance, values};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};

const LENGTH: usize = 64;

fn fixture() -> PathBuf {
    fieldmark_tests::prompts::fixture("siglip_tiny")
}

#[derive(serde::Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

fn cases(file: &str) -> Vec<Case> {
    serde_json::from_slice(&std::fs::read(fixture().join(file)).unwrap()).unwrap()
}

/// Numbers and shape of one of the reference's tensors.
fn expected(name: &str) -> (Vec<f32>, Vec<usize>) {
    let bytes = std::fs::read(fixture().join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    let values = match view.dtype() {
        Dtype::F32 => view.data().as_chunks().0.iter().map(|&b: &[u8; 4]| f32::from_le_bytes(b)).collect(),
        Dtype::I64 => view.data().as_chunks().0.iter().map(|&b: &[u8; 8]| i64::from_le_bytes(b) as f32).collect(),
        other => panic!("{other:?}"),
    };
    (values, view.shape().to_vec())
}

fn near<const D: usize>(found: Tensor<D>, (expected, shape): &(Vec<f32>, Vec<usize>)) {
    assert_eq!(found.dims().to_vec(), *shape);
    let worst = distance(&values(found), expected);
    assert!(worst < 1e-5, "{worst}");
}

fn ids(rows: &[&[u32]], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> = rows.iter().flat_map(|row| row.iter().map(|&id| i64::from(id))).collect();
    Tensor::from_data(TensorData::new(ids, [rows.len(), rows[0].len()]), device)
}

/// A copy of the fixture's folder, to be changed.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    folder
}

fn change(folder: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = folder.join(file);
    let mut json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
}

#[test]
fn ids_are_the_references() {
    let tokenizer = SiglipTokenizer::from_dir(&fixture(), LENGTH).unwrap();
    assert_eq!((tokenizer.pad(), tokenizer.vocab_size()), (1, 300));
    let cases = cases("texts.json");
    assert_eq!(cases.len(), 22);
    for Case { text, ids } in cases {
        assert_eq!(ids.len(), LENGTH);
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
    }
}

#[test]
fn a_file_that_canonicalises_itself_gives_the_same_ids() {
    let folder = copy();
    change(folder.path(), "tokenizer.json", |json| {
        let map = json["normalizer"]["normalizers"][0].clone();
        assert_eq!(map["type"], "Precompiled");
        let replace = |pattern: &str, content: &str| json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content});
        json["normalizer"] = json!({"type": "Sequence", "normalizers": [
            {"type": "Lowercase"}, replace("[!-/:-@\\[-`{-~]", ""), replace("\\s+", " "), map,
            {"type": "Strip", "strip_left": true, "strip_right": true},
        ]});
        json["post_processor"] = json!({"type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}}});
        json["truncation"] = json!({"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0});
    });
    let tokenizer = SiglipTokenizer::from_dir(folder.path(), LENGTH).unwrap();
    for Case { text, ids } in cases("texts.json") {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
    }
}

#[test]
fn the_second_versions_ids_are_the_references() {
    let folder = fixture().join("siglip2");
    let tokenizer = SiglipTokenizer::from_dir(&folder, LENGTH).unwrap();
    assert_eq!((tokenizer.pad(), tokenizer.vocab_size()), (0, 480));
    for Case { text, ids } in cases("siglip2/texts.json") {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
    }
    // Its own file need not ask for lower case, nor name the side.
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("tokenizer.json"), copy.path().join("tokenizer.json")).unwrap();
    change(copy.path(), "tokenizer.json", |json| json["normalizer"] = json["normalizer"]["normalizers"][1].clone());
    let plain = SiglipTokenizer::from_dir(copy.path(), LENGTH).unwrap();
    for Case { text, ids } in cases("siglip2/texts.json") {
        assert_eq!(plain.encode(&text).unwrap(), ids, "{text:?}");
    }
    std::fs::write(copy.path().join("tokenizer_config.json"), r#"{"padding_side": "left"}"#).unwrap();
    let left = SiglipTokenizer::from_dir(copy.path(), LENGTH).unwrap().encode("lime").unwrap();
    assert_eq!((left[0], left[LENGTH - 1]), (0, 1));
}

#[test]
fn states_and_pooled_vectors_are_the_references() {
    let device = Device::flex();
    let model = SiglipTextModel::from_pretrained(&fixture(), &device).unwrap();
    let cases = cases("texts.json");
    let rows: Vec<&[u32]> = cases.iter().map(|case| case.ids.as_slice()).collect();
    let out = model.forward(ids(&rows, &device));
    let pooled = expected("pooled");
    near(out.pooled, &pooled);
    let chosen: Vec<&[u32]> = expected("chosen").0.iter().map(|&i| rows[i as usize]).collect();
    near(model.forward(ids(&chosen, &device)).last_hidden_state, &expected("last_hidden_state"));
    let short: Vec<&[u32]> = rows[..3].iter().map(|row| &row[..7]).collect();
    let out = model.forward(ids(&short, &device));
    near(out.last_hidden_state, &expected("short.last_hidden_state"));
    near(out.pooled, &expected("short.pooled"));
    // The vectors differ from text to text, so that a mix-up would show.
    let width = pooled.1[1];
    assert!(cosine(&pooled.0[..width], &pooled.0[2 * width..3 * width]) < 0.99);
}

#[test]
fn an_embedder_gives_a_text_its_vector_alone_and_among_others() {
    let device = Device::flex();
    // A device of training: what is computed is on no tape.
    let embedder = SiglipEmbedder::from_pretrained(&fixture(), &device.clone().autodiff()).unwrap();
    let cases = cases("texts.json");
    let (pooled, shape) = expected("pooled");
    let near = |found: &[f32], i: usize| {
        let expected = &pooled[i * shape[1]..][..shape[1]];
        distance(found, expected) < 1e-5
    };
    // More than a batch.
    let many: Vec<&str> = (0..4).flat_map(|_| cases.iter().map(|case| case.text.as_str())).collect();
    let together = embedder.embed_all(&many).unwrap();
    assert_eq!(together.len(), many.len());
    for (i, vector) in together.iter().enumerate() {
        assert!(near(vector, i % cases.len()), "{i}");
    }
    for (i, case) in cases.iter().enumerate() {
        let first = embedder.embed(&case.text);
        assert!(near(&first, i), "{:?}", case.text);
        assert_eq!(embedder.embed(&case.text), first);
    }
    assert!(embedder.embed_all(&[]).unwrap().is_empty());
    // What was asked before changes no bit, so that a resumed run scores as one that was never stopped.
    let again = SiglipEmbedder::from_pretrained(&fixture(), &device).unwrap();
    for case in cases.iter().rev() {
        assert_eq!(again.embed(&case.text), embedder.embed(&case.text));
    }
}

/// Writes the fixture's tensors into one file, by what `rename` makes of their names.
fn write_single(folder: &Path, rename: impl Fn(&str) -> Option<String>) {
    let shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
        .map(|file| std::fs::read(fixture().join(file)).unwrap());
    let parsed = shards.each_ref().map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    let tensors: Vec<(String, TensorView)> = parsed
        .iter()
        .flat_map(SafeTensors::tensors)
        .filter_map(|(name, view)| rename(&name).map(|name| (name, view)))
        .collect();
    std::fs::write(folder.join("model.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    let _ = std::fs::remove_file(folder.join("model.safetensors.index.json"));
}

#[test]
fn a_tower_stored_alone_is_the_same() {
    let device = Device::flex();
    let folder = copy();
    change(folder.path(), "config.json", |json| *json = json["text_config"].clone());
    for prefix in ["", "text_model."] {
        write_single(folder.path(), |name| Some(format!("{prefix}{}", name.strip_prefix("text_model.")?)));
        let model = SiglipTextModel::from_pretrained(folder.path(), &device).unwrap();
        let cases = cases("texts.json");
        let rows: Vec<&[u32]> = cases.iter().map(|case| case.ids.as_slice()).collect();
        near(model.forward(ids(&rows, &device)).pooled, &expected("pooled"));
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let device = Device::flex();
    let load = |folder: &Path| SiglipTextModel::from_pretrained(folder, &device).unwrap_err();
    let names = |folder: &Path, parts: &[&str]| {
        let error = load(folder).to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    let folder = copy();
    let path = folder.path();

    change(path, "config.json", |json| json["text_config"]["hidden_act"] = json!("quick_gelu"));
    names(path, &["config.json", "`hidden_act`", "quick_gelu"]);
    change(path, "config.json", |json| json["text_config"]["hidden_act"] = json!("gelu_pytorch_tanh"));
    change(path, "config.json", |json| json["text_config"]["num_attention_heads"] = json!(5));
    names(path, &["`num_attention_heads`", "5"]);
    change(path, "config.json", |json| json["text_config"]["num_attention_heads"] = json!(3));
    change(path, "config.json", |json| json["model_type"] = json!("clip"));
    names(path, &["`model_type`", "clip"]);
    change(path, "config.json", |json| json["model_type"] = json!("siglip2"));
    SiglipTextModel::from_pretrained(path, &device).unwrap();

    change(path, "config.json", |json| json["text_config"]["projection_size"] = json!(24));
    let ModelError::TensorShape { name, found, expected, .. } = load(path) else { panic!("{}", load(path)) };
    assert!(name.starts_with("text_model.head.") && found[0] == 20 && expected[0] == 24, "{name}");
    change(path, "config.json", |json| json["text_config"]["projection_size"] = json!(20));

    write_single(path, |name| (name != "text_model.encoder.layers.1.mlp.fc2.bias").then(|| name.into()));
    assert!(
        matches!(load(path), ModelError::MissingTensors { first, count: 1, .. } if first == "encoder.layers.1.mlp.fc2.bias")
    );
    write_single(path, |name| Some(name.replace("layers.1.mlp.fc2.bias", "layers.1.mlp.fc3.bias")));
    names(path, &["`encoder.layers.1.mlp.fc2.bias`", "layers.1.mlp.fc3.bias`"]);
    std::fs::remove_file(path.join("model.safetensors")).unwrap();
    names(path, &["model.safetensors"]);

    let embed = |path: &Path| SiglipEmbedder::from_pretrained(path, &device).unwrap_err().to_string();
    let folder = copy();
    let path = folder.path();
    std::fs::rename(path.join("tokenizer.json"), path.join("spiece.model")).unwrap();
    assert!(embed(path).contains("tokenizer.json") && embed(path).contains("SpmConverter"), "{}", embed(path));
    std::fs::remove_file(path.join("spiece.model")).unwrap();
    assert!(
        matches!(SiglipEmbedder::from_pretrained(path, &device), Err(ProcessorError::Io { path, .. }) if path.ends_with("tokenizer.json"))
    );
    std::fs::copy(fixture().join("tokenizer.json"), path.join("tokenizer.json")).unwrap();
    std::fs::write(path.join("tokenizer_config.json"), r#"{"pad_token": {"content": "<nothing>"}}"#).unwrap();
    assert!(embed(path).contains("<nothing>"));
    std::fs::write(path.join("tokenizer_config.json"), r#"{"pad_token": {"content": "<pad>"}}"#).unwrap();
    let tokenizer = SiglipTokenizer::from_dir(path, LENGTH).unwrap();
    assert_eq!(tokenizer.encode("").unwrap()[..3], [1, 0, 0]);
    change(path, "config.json", |json| json["text_config"]["vocab_size"] = json!(299));
    write_single(path, |name| Some(name.into()));
    assert!(embed(path).contains("token_embedding"));
}

#[test]
fn the_defaults_are_those_of_the_published_checkpoint() {
    let config = SiglipTextConfig::from_json(&json!({"model_type": "siglip", "text_config": {}})).unwrap();
    assert_eq!(config, SiglipTextConfig::new());
    // By torch, of SiglipTextModel(SiglipTextConfig()).
    assert_eq!(config.parameter_count(), 110_271_744);
}
