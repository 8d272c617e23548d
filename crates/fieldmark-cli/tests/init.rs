//! Checkpoints made from nothing: what `init` writes can be loaded, asked and trained.

mod support;

use std::{collections::BTreeMap, fs};

use burn::tensor::Device;
use fieldmark::{
    model::{LoadOptions, Qwen25Vl},
    processor::Processor,
};
use serde_json::{Value, json};
use support::{Place, lines};

const SHAPE: &str = "\
vocab_size = 320
initializer_range = 0.05
[text]
hidden_size = 64
intermediate_size = 96
num_hidden_layers = 2
num_attention_heads = 4
[vision]
depth = 2
hidden_size = 32
intermediate_size = 48
num_heads = 2
fullatt_block_indexes = [1]
[images]
min_pixels = 3136
max_pixels = 6272
";

const INIT: [&str; 7] = ["init", "--shape", "shape.toml", "--corpus", "texts.txt", "--out", "made/new"];

fn place() -> Place {
    let place = Place::new();
    place.write("shape.toml", SHAPE);
    place.write("texts.txt", "Which fruit?\n<think>green</think> <answer>Lime</answer>\n\nLime and Plum\n");
    place
}

fn files(place: &Place, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(place.path(folder)).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn a_checkpoint_from_nothing_answers_and_learns() {
    let place = place();
    place.write("generation_config.json", r#"{ "eos_token_id": 7 }"#);
    let printed = place.succeed(&INIT);
    assert!(printed.contains(": made/new\n") && printed.contains("sft.train.vision=true"), "{printed}");
    // Nothing else is left beside it.
    assert_eq!(fs::read_dir(place.path("made")).unwrap().count(), 1);
    let folder = place.path("made/new");
    let model = Qwen25Vl::from_pretrained(&folder, LoadOptions::default(), &Device::flex()).unwrap();
    let processor = Processor::from_dir(&folder).unwrap();
    // The end token is the tokenizer's, whatever lies in the current folder.
    let generation: Value = serde_json::from_slice(&fs::read(folder.join("generation_config.json")).unwrap()).unwrap();
    assert_eq!(generation["eos_token_id"], json!([processor.tokenizer.eos()]));
    processor.check(model.config(), folder.join("config.json")).unwrap();
    let sizes = &model.config().text;
    assert_eq!((sizes.hidden_size, sizes.num_key_value_heads, sizes.mrope_section), (64, 2, [2, 3, 3]));
    assert_eq!(processor.tokenizer.encode("</answer>").unwrap().len(), 1);

    let ask = ["ask", "--model", "made/new", "--image", "a.png", "--max-new-tokens", "4", "Which fruit?"];
    assert!(place.succeed(&ask).ends_with('\n'));
    // Without a recipe file, and with every part learning.
    place.conversations("sft.json", 4, |_, _| ());
    let sets = [
        "model.path=made/new",
        "data.sft.file=sft.json",
        "output=out",
        "sft.train.vision=true",
        "sft.train.projector=true",
        "sft.epochs=6",
        "sft.batch=2",
        "sft.micro_batch=2",
        "sft.schedule.lr=1e-3",
    ];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    place.succeed(&["sft"].into_iter().chain(sets).collect::<Vec<_>>());
    let losses: Vec<f64> = lines(&place, "out/metrics.jsonl").iter().map(|row| row["loss"].as_f64().unwrap()).collect();
    assert!(losses[losses.len() - 1] < losses[0], "{losses:?}");
    let (before, after) = (files(&place, "made/new"), files(&place, "out/checkpoint"));
    assert!(before.keys().eq(after.keys()));
    assert_ne!(before["model.safetensors"], after["model.safetensors"]);
    place.succeed(&[&ask[..2], &["out/checkpoint"], &ask[3..]].concat());
}

#[test]
fn the_seed_decides_every_byte() {
    let place = place();
    place.succeed(&INIT);
    let other = |out: &'static str, seed: &'static str| {
        place.succeed(&[&INIT[..6], &[out, "--seed", seed]].concat());
        files(&place, out)
    };
    let (first, again, changed) = (files(&place, "made/new"), other("again", "0"), other("changed", "1"));
    assert!(first == again);
    let differ: Vec<&String> = first.keys().filter(|name| first[*name] != changed[*name]).collect();
    assert_eq!(differ, ["model.safetensors"]);
    // The default shape, whose head is its own matrix.
    place.write("shape.toml", "tie_word_embeddings = false\n");
    place.succeed(&[&INIT[..6], &["untied"]].concat());
    Qwen25Vl::from_pretrained(&place.path("untied"), LoadOptions::default(), &Device::flex()).unwrap();
}

#[test]
fn whatever_is_wrong_leaves_no_folder() {
    let place = place();
    let refuse = |args: &[&str]| {
        let before = place.listing();
        let refusal = place.refuse(args);
        assert_eq!(place.listing(), before);
        refusal.at_once();
        refusal
    };
    place.write("shape.toml", SHAPE.replace("num_heads = 2\n", "num_heads = 3\n"));
    refuse(&INIT).names("shape.toml").names_key("vision.num_heads").names("3").names("32");
    place.write("shape.toml", SHAPE.replace("depth", "num_layers"));
    refuse(&INIT).names("shape.toml").names_key("vision.num_layers").suggests("depth");
    place.write("shape.toml", SHAPE.replace("320", "200"));
    refuse(&INIT).names("shape.toml").names_key("vocab_size").names("200");
    place.write("shape.toml", "[text\n");
    refuse(&INIT).names("shape.toml").names("line 1").names("TOML");
    // Each size is allowed, but not all of them together: 10¹⁴ parameters.
    place.write("shape.toml", "[text]\nhidden_size = 98304\nintermediate_size = 131072\nnum_hidden_layers = 2000\n");
    refuse(&INIT).names("shape.toml").names("1000000000").suggests("--max-parameters");
    place.write("shape.toml", SHAPE);
    refuse(&[&INIT[..], &["--max-parameters", "1000"]].concat()).names("1000").suggests("--max-parameters");
    fs::remove_file(place.path("shape.toml")).unwrap();
    refuse(&INIT).names("shape.toml").names("No such file");
    place.write("shape.toml", SHAPE);
    place.write("texts.txt", "\n\n");
    refuse(&INIT).names("texts.txt").names("text");
    place.write("texts.txt", b"Lime\n\xff\n");
    refuse(&INIT).names("texts.txt").names("line 2").names("UTF-8");
    fs::remove_file(place.path("texts.txt")).unwrap();
    refuse(&INIT).names("texts.txt").names("No such file");
    for folder in ["model", "a.png", "..", "/"] {
        refuse(&[&INIT[..6], &[folder]].concat()).names(folder);
    }
}
