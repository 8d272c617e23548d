//! The example from end to end on the tiny checkpoint.

use std::{fs, process::Command};

use image::{Rgb, RgbImage};
use serde_json::json;

#[test]
fn the_example_trains_and_scores_a_tiny_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fieldmark_tests::tiny::checkpoint(&path("model"));
    for (name, shade) in [("a.png", 40), ("b.png", 200), ("c.png", 120)] {
        RgbImage::from_fn(60, 70, |x, y| Rgb([(x * 2) as u8, (y * 3) as u8, shade])).save(path(name)).unwrap();
    }
    let conversation = |image: &str| {
        json!({
            "messages": [
                { "role": "user", "content": "<image>Which fruit?" },
                { "role": "assistant", "content": "<think>green</think> <answer>Lime</answer>" },
            ],
            "images": [image],
        })
    };
    let conversations = json!([conversation("a.png"), conversation("b.png"), conversation("c.png")]);
    fs::write(path("stage1.json"), conversations.to_string()).unwrap();
    let triplet = json!({
        "images": ["a.png"], "image_noisy": ["b.png"], "image_aug": ["c.png"], "problem": "<image>Which fruit?", "answer": "Lime",
    });
    fs::write(path("triplets.jsonl"), format!("{triplet}\n{triplet}\n")).unwrap();
    let question = json!({
        "image_path": "a.png", "question": "Which fruit?", "options": ["Lime", "Lemon"], "ground_truth": "Lime",
    });
    fs::write(path("fruit_seen.jsonl"), format!("{question}\n")).unwrap();

    let args = ["model", "stage1.json", "triplets.jsonl", "fruit_seen.jsonl", "out"];
    let output = Command::new(env!("CARGO_BIN_EXE_finetune")).args(args).current_dir(&folder).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    for text in ["update 1: loss ", "update 2: loss ", "step 1: reward ", "strict"] {
        assert!(out.contains(text), "{text}: {out}");
    }
    for file in ["sft/checkpoint/model.safetensors", "tapo/checkpoint/model.safetensors", "tapo/rollouts.jsonl"] {
        assert!(path("out").join(file).is_file(), "{file}");
    }
    assert_eq!(fs::read_to_string(path("out/eval/predictions.jsonl")).unwrap().lines().count(), 2);
}
