//! LoRA adapters of PEFT beside their base: `ask`, `eval`, `sft` and `tapo` read them, merged or to train on.
#![cfg(unix)]

mod support;

use std::{collections::BTreeMap, fs, path::Path};

use burn::tensor::Device;
use fieldmark::model::{Adapter, LoadOptions, Qwen25Vl, SaveOptions};
use fieldmark_tests::peft::{Entry, entry, write};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use support::{
    Place, lines, question,
    refusal::Refusal,
    runs::{args, kill, place, resume, run, same, succeed},
};

const LAYERS: [(&str, [usize; 2]); 3] = [
    ("model.layers.0.mlp.down_proj", [64, 96]),
    ("model.layers.2.self_attn.o_proj", [64, 64]),
    ("visual.merger.mlp.2", [64, 256]),
];

fn config() -> Value {
    json!({ "peft_type": "LORA", "r": 2, "lora_alpha": 3, "target_modules": LAYERS.map(|(name, _)| name) })
}

/// Factors of rank 2 that change every answer.
fn factors() -> Vec<Entry> {
    let mut entries = Vec::new();
    for (layer, [to, from]) in LAYERS {
        entries.push(entry(&format!("{layer}.lora_A.weight"), &[2, from]));
        entries.push(entry(&format!("{layer}.lora_B.weight"), &[to, 2]));
    }
    entries
}

/// A place with the adapter `peft` of `model`, and the model `merged` that the two make.
fn with_adapter(place: &Place) {
    write(&place.path("peft"), &config(), &factors());
    fs::create_dir(place.path("merged")).unwrap();
    for name in support::names(place, "model") {
        fs::copy(place.path("model").join(&name), place.path("merged").join(&name)).unwrap();
    }
    let base = Qwen25Vl::from_pretrained(&place.path("model"), LoadOptions::default(), &Device::flex()).unwrap();
    let merged = base.with_merged_adapter(&Adapter::open(&place.path("peft")).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    merged.save_pretrained(folder.path(), SaveOptions::default()).unwrap();
    fs::copy(folder.path().join("model.safetensors"), place.path("merged/model.safetensors")).unwrap();
}

fn tensors(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    parsed.tensors().into_iter().map(|(name, view)| (name, view.data().to_vec())).collect()
}

fn strings(parts: &[&str]) -> Vec<String> {
    parts.iter().map(|part| (*part).to_owned()).collect()
}

#[test]
fn ask_and_eval_answer_as_the_merged_model_does() {
    let place = Place::new();
    with_adapter(&place);
    let ask = |more: &[&str]| {
        let common = ["ask", "--image", "a.png", "Which fruit?", "--max-new-tokens", "12"];
        place.succeed(&[&common[..], more].concat())
    };
    let expected = ask(&["--model", "merged"]);
    assert!(ask(&["--model", "model"]) != expected);
    assert_eq!(ask(&["--model", "model", "--adapter", "peft"]), expected);

    place.write("recipe.toml", place.recipe());
    let rows = [question("a.png", "Lime"), question("b.png", "Plum")].map(|row| row.to_string()).join("\n");
    place.write("fruit_seen.jsonl", rows);
    let eval = |output: &str, more: &[&str]| {
        let output = format!("output={output}");
        place.succeed(&[&["eval", "-c", "recipe.toml", "--set", &output], more].concat());
    };
    eval("one", &["--set", "model.path=merged"]);
    eval("two", &["--adapter", "peft"]);
    eval("three", &["--set", "model.adapter=peft"]);
    eval("none", &[]);
    let answers = |output: &str| {
        let rows = lines(&place, &format!("{output}/predictions.jsonl"));
        rows.iter().map(|row| row["output"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(
        answers("two") == answers("one") && answers("three") == answers("one") && answers("none") != answers("one")
    );
    let name = &lines(&place, "two/predictions.jsonl")[0]["model"];
    assert!(name.as_str().is_some_and(|name| name.contains("model") && name.ends_with("peft")), "{name}");
    let recipe: toml::Table = fs::read_to_string(place.path("two/eval.toml")).unwrap().parse().unwrap();
    assert!(recipe["model"]["adapter"].as_str().is_some_and(|path| path.ends_with("peft")));
}

#[test]
fn training_begins_with_the_merged_weights_or_goes_on_with_the_adapter() {
    let place = Place::new();
    with_adapter(&place);
    place.write("recipe.toml", place.recipe());
    place.conversations("sft.json", 3, |_, _| ());
    let still = strings(&["--adapter", "peft", "--set", "sft.epochs=1", "--set", "sft.schedule.lr=0.0"]);
    let lora = strings(&["--set", "lora.rank=2", "--set", "lora.alpha=3"]);
    // With a rate of 0 a run ends as it began.
    succeed(&place, &[args("sft", "whole"), still.clone()].concat());
    let merged = tensors(&place.path("merged/model.safetensors"));
    assert!(tensors(&place.path("whole/checkpoint/model.safetensors")) == merged);
    assert!(!place.path("whole/checkpoint/adapter").exists());
    succeed(&place, &[args("sft", "lora"), still.clone(), lora.clone()].concat());
    let saved = tensors(&place.path("lora/checkpoint/adapter/adapter_model.safetensors"));
    let given = tensors(&place.path("peft/adapter_model.safetensors"));
    let newer = |name: &str| {
        let name = name.trim_start_matches("base_model.model.");
        let name =
            name.strip_prefix("model.").map_or(format!("model.{name}"), |rest| format!("model.language_model.{rest}"));
        format!("base_model.model.{name}")
    };
    assert!(given.iter().map(|(name, bytes)| (newer(name), bytes.clone())).collect::<BTreeMap<_, _>>() == saved);
    assert!(tensors(&place.path("lora/checkpoint/model.safetensors")) == merged);

    // What is learned is an adapter of the same base, which a run's folder stands for.
    let moving = strings(&["--adapter", "lora", "--set", "sft.schedule.lr=0.01"]);
    succeed(&place, &[args("sft", "on"), moving, lora].concat());
    let learned = tensors(&place.path("on/checkpoint/adapter/adapter_model.safetensors"));
    assert!(learned.keys().eq(saved.keys()));
    // SFT trains the decoder alone; the adapter of the projector stays.
    for (name, bytes) in &learned {
        assert_eq!(saved[name] == *bytes, name.contains("visual"), "{name}");
    }
    let ask = |more: &[&str]| {
        place.succeed(&[&["ask", "--image", "a.png", "Which?", "--max-new-tokens", "8"], more].concat())
    };
    let expected = ask(&["--model", "on/checkpoint"]);
    for adapter in ["on", "on/checkpoint", "on/checkpoint/adapter"] {
        assert_eq!(ask(&["--model", "model", "--adapter", adapter]), expected);
    }
    // It is in those weights already.
    fs::create_dir(place.path("copy")).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(place.path("on/checkpoint/adapter").join(name), place.path("copy").join(name)).unwrap();
    }
    for adapter in ["on", "copy"] {
        let twice = ["ask", "Which?", "--model", "on/checkpoint", "--adapter", adapter];
        place.refuse(&twice).names_key("model.adapter").names("on/checkpoint");
    }
}

#[test]
fn a_run_that_goes_on_with_an_adapter_resumes_to_the_same_bytes_and_notices_another() {
    let place = place();
    with_adapter(&place);
    let lora = strings(&["--adapter", "peft", "--set", "lora.rank=2", "--set", "lora.alpha=3"]);
    let merged = strings(&["--adapter", "peft"]);
    for (stage, name, sets) in [("sft", "whole", &merged), ("tapo", "lora", &lora)] {
        let (whole, ours) = (format!("{stage}-{name}"), format!("{stage}-{name}-again"));
        for output in [&whole, &ours] {
            succeed(&place, &[args(stage, output), sets.clone()].concat());
        }
        kill(&place, &ours);
        let begun = place.path("begun");
        fs::create_dir(&begun).unwrap();
        copy(&place.path(&ours), &begun);
        succeed(&place, &[resume(stage, &ours), sets.clone()].concat());
        same(&place, stage, &ours, &whole);

        // Another adapter, none, and another content of the same files.
        let other = [resume(stage, "begun"), strings(&["--adapter", "other"]), sets[2..].to_vec()].concat();
        Refusal::of(&other, &run(&place, &other)).names_key("model.adapter");
        let none = [resume(stage, "begun"), sets[2..].to_vec()].concat();
        Refusal::of(&none, &run(&place, &none)).names_key("model.adapter");
        let mut changed = factors();
        changed[0].2[0] += 1.0;
        write(&place.path("peft"), &config(), &changed);
        let again = [resume(stage, "begun"), sets.clone()].concat();
        Refusal::of(&again, &run(&place, &again)).names("peft/adapter_model.safetensors");
        write(&place.path("peft"), &config(), &factors());
        fs::remove_dir_all(begun).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn an_adapter_that_cannot_be_read_exactly_costs_nothing() {
    let place = place();
    with_adapter(&place);
    let changed = |name: &str, change: Value| {
        let mut all = config();
        all.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        write(&place.path(name), &all, &factors());
    };
    changed("pissa", json!({ "init_lora_weights": "pissa_niter_16" }));
    changed("unknown", json!({ "key_of_tomorrow": 1 }));
    let commands = |adapter: &str| {
        [
            strings(&["ask", "Which?", "--model", "model", "--adapter", adapter]),
            [args("eval", "out"), strings(&["--adapter", adapter])].concat(),
            [args("sft", "out"), strings(&["--adapter", adapter])].concat(),
            [args("tapo", "out"), strings(&["--adapter", adapter])].concat(),
        ]
    };
    place.write("fruit_seen.jsonl", question("a.png", "Lime").to_string());
    for command in commands("pissa") {
        place.refuse(&command).names_key("init_lora_weights").names("pissa/adapter_config.json");
    }
    for command in commands("unknown") {
        place.refuse(&command).names_key("key_of_tomorrow");
    }
    for command in commands("absent") {
        place.refuse(&command).names("absent");
    }
    write(&place.path("empty"), &config(), &[]);
    for command in commands("empty") {
        Refusal::after_work(&command, &run(&place, &command)).names("empty/adapter_model.safetensors");
    }
    let mut left_over = factors();
    left_over.push(entry("model.layers.0.mlp.down_proj.lora_E.weight", &[2]));
    write(&place.path("left"), &config(), &left_over);
    for command in commands("left") {
        // `tapo` has already said that no truth fits into its few tokens.
        Refusal::after_work(&command, &run(&place, &command))
            .names("base_model.model.model.layers.0.mlp.down_proj.lora_E.weight");
    }
    write(&place.path("cut"), &config(), &factors()[2..]);
    for command in commands("cut") {
        Refusal::after_work(&command, &run(&place, &command))
            .names("cut/adapter_model.safetensors")
            .names("base_model.model.model.layers.0.mlp.down_proj.lora_A.weight")
            .names("2");
    }
    // The output folder of another trainer, and a run of ours that is not finished.
    for (folder, inner) in [("trl", "checkpoint-1000"), ("run", "checkpoints/step-000020/adapter")] {
        for name in ["checkpoint-500", "checkpoints/step-000003/adapter", inner] {
            write(&place.path(folder).join(name), &config(), &factors());
        }
        fs::remove_dir_all(place.path(folder).join(if folder == "run" { "checkpoint-500" } else { "checkpoints" }))
            .unwrap();
        for command in commands(folder) {
            place.refuse(&command).names(folder).suggests(&format!("{folder}/{inner}"));
        }
    }
    for command in commands("peft/adapter_model.safetensors") {
        place.refuse(&command).names("peft/adapter_model.safetensors").suggests("peft");
    }
    // Another rank than the adapter's.
    let rank = [args("sft", "out"), strings(&["--adapter", "peft", "--set", "lora.rank=4", "--set", "lora.alpha=3"])];
    place.refuse(&rank.concat()).names_key("r").suggests("lora.rank=2");
    let alpha = [args("tapo", "out"), strings(&["--adapter", "peft", "--set", "lora.rank=2"])];
    place.refuse(&alpha.concat()).names_key("lora_alpha").suggests("lora.alpha=3");
    let scored = place.run(&["eval", "--score-only", "x.jsonl", "--adapter", "peft"]);
    assert_eq!(scored.status.code(), Some(2));
}
