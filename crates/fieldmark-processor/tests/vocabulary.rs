//! A tokenizer from `vocab.json` and `merges.txt` against the published `tokenizer.json`, whose parts they are.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use fieldmark_processor::{SpecialTokens, Tokenizer};
use flate2::read::GzDecoder;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tokenizer").join(path)
}

static JSON: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut json = Vec::new();
    GzDecoder::new(fs::File::open(fixture("tokenizer.json.gz")).unwrap()).read_to_end(&mut json).unwrap();
    json
});
static PUBLISHED: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::from_bytes(&JSON, "tokenizer.json").unwrap());

/// Writes the parts of the published file. The added tokens are in the file that tools wrote first, or in the newer one.
fn write(folder: &Path, newer: bool) {
    let json: Value = serde_json::from_slice(&JSON).unwrap();
    fs::write(folder.join("vocab.json"), json["model"]["vocab"].to_string()).unwrap();
    let mut merges = vec!["#version: 0.2".to_owned()];
    for merge in json["model"]["merges"].as_array().unwrap() {
        merges.push(match merge {
            Value::String(pair) => pair.clone(),
            pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        });
    }
    fs::write(folder.join("merges.txt"), merges.join("\n") + "\n").unwrap();
    let tokens = json["added_tokens"].as_array().unwrap();
    let write = |name: &str, json: Value| fs::write(folder.join(name), json.to_string()).unwrap();
    if newer {
        let mut decoder = Map::new();
        for token in tokens {
            let mut token = token.clone();
            let id = token.as_object_mut().unwrap().remove("id").unwrap();
            decoder.insert(id.to_string(), token);
        }
        write("tokenizer_config.json", json!({ "added_tokens_decoder": decoder, "eos_token": "<|im_end|>" }));
    } else {
        let ids: Map<String, Value> =
            tokens.iter().map(|token| (token["content"].as_str().unwrap().to_owned(), token["id"].clone())).collect();
        write("added_tokens.json", ids.into());
        let special = |token: &&Value| token["special"] == true;
        let special: Vec<&Value> = tokens.iter().filter(special).map(|token| &token["content"]).collect();
        write("special_tokens_map.json", json!({ "additional_special_tokens": special, "eos_token": "<|im_end|>" }));
    }
}

static BOTH: LazyLock<[Tokenizer; 2]> = LazyLock::new(|| {
    [false, true].map(|newer| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), newer);
        Tokenizer::from_folder(folder.path()).unwrap()
    })
});

fn assert_same(text: &str) {
    let expected = PUBLISHED.encode(text).unwrap();
    for ours in BOTH.iter() {
        assert_eq!(ours.encode(text).unwrap(), expected, "{text:?}");
        for specials in [SpecialTokens::Keep, SpecialTokens::Skip] {
            assert_eq!(ours.decode(&expected, specials).unwrap(), PUBLISHED.decode(&expected, specials).unwrap());
        }
    }
}

#[test]
fn every_case_has_the_published_ids() {
    let cases = fs::read_to_string(fixture("cases.jsonl")).unwrap();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        assert_same(case["text"].as_str().unwrap());
    }
    assert_same("<tool_call>{}</tool_call><|fim_prefix|>x<|endoftext|>");
    for ours in BOTH.iter() {
        assert_eq!((ours.vocab_size(), ours.eos()), (PUBLISHED.vocab_size(), PUBLISHED.eos()));
        let json: Value = serde_json::from_str(&ours.to_json().unwrap()).unwrap();
        let published: Value = serde_json::from_str(&PUBLISHED.to_json().unwrap()).unwrap();
        for part in ["added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder"] {
            assert_eq!(json[part], published[part], "{part}");
        }
    }
}

proptest! {
    #[test]
    fn any_text_has_the_published_ids(text in "\\PC{0,60}", spaced in "[ \\n\\ta-zA-Z0-9'.,<|>äß東]{0,60}") {
        assert_same(&text);
        assert_same(&spaced);
    }
}

#[test]
fn files_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let said = || Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let names = |parts: &[&str]| {
        let said = said();
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    };
    names(&["tokenizer.json"]);
    write("vocab.json", r#"{"a": 0, "b": 1, "ab": 2}"#);
    names(&["vocab.json", "merges.txt"]);
    write("merges.txt", "#version: 0.2\na b\nab\n");
    names(&["merges.txt", "line 3"]);
    write("merges.txt", "#version: 0.2\na b\n");
    names(&["vocab.json", "<|endoftext|>"]);
    write("added_tokens.json", r#"{"<|endoftext|>": 3, "<|im_start|>": 7}"#);
    names(&["vocab.json", "<|im_start|>", "7"]);
    write("added_tokens.json", r#"{"<|endoftext|>": "3"}"#);
    names(&["added_tokens.json", "<|endoftext|>"]);
    write("tokenizer_config.json", r#"{"added_tokens_decoder": {"three": {"content": "x"}}}"#);
    names(&["tokenizer_config.json", "added_tokens_decoder", "three"]);
    write("vocab.json", r#"{"a": 0, "b": 0}"#);
    names(&["vocab.json", "same id 0"]);
    write("vocab.json", "version https://git-lfs.github.com/spec/v1\n");
    names(&["vocab.json", "git lfs pull"]);
}
