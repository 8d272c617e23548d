//! The commands one after another on a tiny checkpoint: what SFT writes TAPO reads, and evaluation and questions after it.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use burn::tensor::Device;
use fieldmark::{
    processor::SiglipEmbedder,
    train::reward::{EmbeddingSimilarity, Reward, RewardInput},
};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use support::{Place, lines, names, question, refusal::mentions, triplet};

fn weights(place: &Place, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(place.path(folder).join("model.safetensors")).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    parsed.tensors().into_iter().map(|(name, view)| (name.to_string(), view.data().to_vec())).collect()
}

#[test]
fn the_stages_follow_one_another() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    place.conversations("sft.json", 3, |_, _| ());
    let rows = [triplet(["a.png", "b.png", "c.png"]), triplet(["b.png", "a.png", "c.png"])];
    place.write("tapo.jsonl", format!("{}\n{}\n", rows[0], rows[1]));
    place.write("fruit_seen.jsonl", format!("{}\n{}\n", question("a.png", "Lime"), question("b.png", "Plum")));

    place.succeed(&["sft", "-c", "recipe.toml", "--set", "output=sft"]);
    let left =
        ["checkpoint", "inputs.json", "loss.svg", "metrics.jsonl", "recipe.toml", "tensorboard", "timings.jsonl"];
    let left = left.map(str::to_owned);
    assert_eq!(names(&place, "sft"), BTreeSet::from(left));
    let metrics = lines(&place, "sft/metrics.jsonl");
    assert_eq!(metrics.len(), 4);
    assert!(metrics[3]["loss"].as_f64().unwrap() < metrics[0]["loss"].as_f64().unwrap(), "{metrics:?}");
    assert!(names(&place, "sft/checkpoint").is_superset(&names(&place, "model")));
    let (before, after) = (weights(&place, "model"), weights(&place, "sft/checkpoint"));
    assert!(before.keys().eq(after.keys()));
    for (name, bytes) in &before {
        assert_eq!(bytes == &after[name], name.starts_with("visual."), "{name}");
    }

    // A second run from the recipe it left is the same run.
    place.succeed(&["sft", "-c", "sft/recipe.toml", "--set", "output=again", "--set", "run.tensorboard=false"]);
    assert!(!place.path("again/tensorboard").exists());
    assert_eq!(weights(&place, "again/checkpoint"), after);
    assert_eq!(
        fs::read(place.path("again/metrics.jsonl")).unwrap(),
        fs::read(place.path("sft/metrics.jsonl")).unwrap()
    );
    let timings = lines(&place, "sft/timings.jsonl");
    assert!(timings.len() == 4 && timings.iter().all(|row| row["tokens_per_second"].as_f64().unwrap() > 0.0));
    assert!(timings.iter().all(|row| row["flops"].as_f64().unwrap() > 0.0 && row.get("mfu").is_none()));

    // Adapters alone, beside the checkpoint with them merged.
    let ended = place.run(&["sft", "-c", "recipe.toml", "--set", "output=lora", "--set", "lora.rank=2"]);
    let table = String::from_utf8(ended.stderr).unwrap();
    // All of the adapters learn, and nothing of the weights that they stand beside.
    for (adapters, share) in [(true, " 100.00 %"), (false, " 0.00 %")] {
        let mut decoder = table.lines().filter(|line| mentions(line, "decoder"));
        let row = decoder.find(|line| mentions(line, "adapters") == adapters);
        assert!(row.is_some_and(|row| row.ends_with(share)), "{table}");
    }
    let merged = weights(&place, "lora/checkpoint");
    assert!(merged.keys().eq(before.keys()));
    for (name, bytes) in &before {
        let adapted = name.contains("layers.") && name.ends_with("_proj.weight");
        assert_eq!(bytes != &merged[name], adapted, "{name}");
    }
    assert!(names(&place, "lora/checkpoint/adapter").contains("adapter_model.safetensors"));

    // In bf16 with masters, and then with compensation.
    place.succeed(&["sft", "-c", "recipe.toml", "--set", "output=half", "--set", "model.dtype=bf16"]);
    let exact = |row: &Value| row["loss"].as_f64().unwrap();
    let pairs: Vec<_> = lines(&place, "half/metrics.jsonl").iter().map(exact).zip(metrics.iter().map(exact)).collect();
    assert!(pairs.iter().all(|(half, whole)| half != whole && (half / whole - 1.0).abs() < 0.05), "{pairs:?}");
    let sets = ["output=half-tapo", "model.path=half/checkpoint", "model.dtype=bf16", "tapo.adamw.half=kahan"];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    place.succeed(&["tapo", "-c", "recipe.toml"].into_iter().chain(sets).collect::<Vec<_>>());

    let tapo = ["tapo", "-c", "recipe.toml", "--set", "output=tapo", "--set", "model.path=sft/checkpoint"];
    place.succeed(&[&tapo[..], &["--set", "run.peak_tflops=2"]].concat());
    let left = [
        "checkpoint",
        "inputs.json",
        "metrics.jsonl",
        "recipe.toml",
        "reward.svg",
        "rollouts.jsonl",
        "tensorboard",
        "timings.jsonl",
    ];
    let left = left.map(str::to_owned);
    assert_eq!(names(&place, "tapo"), BTreeSet::from(left));
    let updates: Vec<Value> =
        lines(&place, "tapo/timings.jsonl").into_iter().filter(|row| row["part"] == "update").collect();
    assert!(!updates.is_empty());
    for row in updates {
        let [flops, seconds, mfu] = ["flops", "seconds", "mfu"].map(|key| row[key].as_f64().unwrap());
        assert!(
            (flops / seconds / 2e12 - mfu).abs() < 1e-12 && row["peak_memory"].as_u64().unwrap() > 1 << 20,
            "{row}"
        );
    }
    // Curves of every stage under their names; without them there is no folder.
    for (stage, tags) in [
        ("sft", &["sft/loss", "sft/grad_norm", "time/update/tokens_per_second", "time/update/peak_memory"][..]),
        (
            "tapo",
            &["tapo/kl_neg", "rollouts/reward", "rollouts/rewards/format", "time/update/mfu", "time/rollouts/seconds"],
        ),
    ] {
        let files: Vec<String> = names(&place, &format!("{stage}/tensorboard")).into_iter().collect();
        assert!(files.len() == 1 && files[0].starts_with("events.out.tfevents."), "{files:?}");
        let events = fs::read(place.path(&format!("{stage}/tensorboard/{}", files[0]))).unwrap();
        for tag in tags {
            assert!(events.windows(tag.len()).any(|bytes| bytes == tag.as_bytes()), "{tag}");
        }
    }
    let rollouts = lines(&place, "tapo/rollouts.jsonl");
    assert_eq!(rollouts.len(), 8);
    for rollout in &rollouts {
        let row = rollout["row"].as_str().unwrap();
        let (anchor, positive) = if row.ends_with("tapo.jsonl:1") { ("a.png", "b.png") } else { ("b.png", "a.png") };
        let expected = if rollout["role"] == "anchor" { anchor } else { positive };
        assert!(rollout["image"].as_str().unwrap().ends_with(expected), "{rollout}");
        let [accuracy, format] = ["accuracy", "format"].map(|key| rollout["rewards"][key].as_f64().unwrap());
        let reward = rollout["reward"].as_f64().unwrap();
        assert!((0.9 * accuracy + 0.1 * format - reward).abs() < 1e-12);
        assert!(rollout["prompt"].as_str().unwrap().starts_with("<image>Which?"));
        assert_eq!(rollout["rollout_step"], 1);
    }
    let metrics = lines(&place, "tapo/metrics.jsonl");
    assert_eq!((metrics[0]["kept"].as_u64(), metrics[1]["step"].as_u64()), (Some(2), Some(1)));
    let tuned = weights(&place, "tapo/checkpoint");
    assert!(tuned.iter().any(|(name, bytes)| name.starts_with("visual.") && bytes != &after[name]));

    let evaluate = ["eval", "-c", "recipe.toml", "--set", "model.path=tapo/checkpoint", "--set", "output=eval"];
    let printed = place.succeed(&evaluate);
    assert_eq!(lines(&place, "eval/predictions.jsonl").len(), 4);
    for text in ["strict", "official (inclusion)", "always the first option", "closed world, %", "fruit"] {
        assert!(printed.contains(text), "{text}: {printed}");
    }
    let again = place.succeed(&["eval", "--score-only", "eval/predictions.jsonl"]);
    assert!(printed.starts_with(again.trim_end()), "{printed}\n{again}");
    let few =
        [&evaluate[..], &["--limit", "1", "--predict-only", "--overwrite", "--set", "eval.order=rotations"]].concat();
    let few = place.succeed(&few);
    assert!(mentions(&few, "4") && mentions(&few, "eval/predictions.jsonl"), "{few}");
    let orders: BTreeSet<String> =
        lines(&place, "eval/predictions.jsonl").iter().map(|row| row["options"].to_string()).collect();
    assert_eq!(orders.len(), 4);

    let question = ["ask", "--model", "tapo/checkpoint", "--image", "a.png", "Which fruit?", "--max-new-tokens", "8"];
    let answer = place.succeed(&question);
    assert_eq!(answer, place.succeed(&question));
    let settings = ["--temperature", "1", "--seed"];
    let answers: BTreeSet<String> =
        ["1", "2", "3"].iter().map(|seed| place.succeed(&[&question[..], &settings, &[*seed]].concat())).collect();
    assert!(answers.len() > 1, "{answers:?}");
    let two = [&question[..], &["--image", "b.png", "--system", "Be brief."]].concat();
    assert!(place.succeed(&two).ends_with('\n'));
}

/// What a stage says on standard error, with its name before it.
fn said(place: &Place, stage: &str, sets: &[&str]) -> Vec<String> {
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let ended = place.run(&[stage, "-c", "recipe.toml"].into_iter().chain(sets).collect::<Vec<_>>());
    let text = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(0), "{text}");
    text.lines().map(str::trim).filter(|line| line.starts_with(&format!("{stage} "))).map(str::to_owned).collect()
}

#[test]
fn without_a_terminal_every_update_and_every_rollout_step_has_a_line() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    place.conversations("sft.json", 3, |_, _| ());
    let rows = [triplet(["a.png", "b.png", "c.png"]), triplet(["b.png", "a.png", "c.png"])];
    place.write("tapo.jsonl", format!("{}\n{}\n", rows[0], rows[1]));
    // Eleven steps of two updates each: more than there are tenths.
    let mut stages = Vec::new();
    for (stage, updates, sets) in [
        ("sft", 1, &["output=sft", "sft.epochs=11", "sft.batch=3"][..]),
        ("tapo", 2, &["output=tapo", "tapo.epochs=11", "tapo.batch=4"]),
    ] {
        let found = said(&place, stage, sets);
        assert_eq!(found.len(), 11, "{found:?}");
        let metrics = lines(&place, &format!("{stage}/metrics.jsonl"));
        let made: Vec<&Value> = metrics.iter().filter(|row| row.get("lr").is_some()).collect();
        for (step, line) in (1..).zip(&found) {
            let last = made[step * updates - 1];
            let (loss, lr) = (last["loss"].as_f64().unwrap(), last["lr"].as_f64().unwrap());
            let text = format!("loss {loss:.4}  lr {lr:.2e}");
            let place = format!("{stage} {step}/11  ");
            assert!(line.starts_with(&place) && line.ends_with(&text), "{line}: {text}");
            // The seconds elapsed and the seconds left.
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_time = |pair: &&[&str]| pair[0].parse::<u64>().is_ok() && pair[1].trim_end_matches(',') == "s";
            assert_eq!(words.windows(2).filter(is_time).count(), 2, "{line}");
        }
        stages.push((found, metrics));
    }
    let (found, metrics) = &stages[1];
    let rewards = metrics.iter().filter_map(|row| row["reward"].as_f64());
    for (line, reward) in found.iter().zip(rewards) {
        assert!(line.contains(&format!("reward {reward:.3}  ")), "{line}: {reward}");
    }
}

#[test]
fn help_and_devices() {
    let place = Place::new();
    let help = place.succeed(&["--help"]);
    let starts = |words: &str| help.lines().any(|line| line.trim_start().starts_with(words));
    // Examples, the exit codes, and all commands.
    for command in ["demo", "ask", "init", "data check", "prompt", "sft", "tapo", "eval"] {
        assert!(starts(&format!("fieldmark {command}")), "{command}: {help}");
    }
    for code in [0, 1, 2, 70, 130] {
        assert!(starts(&format!("{code} ")), "{code}: {help}");
    }
    for command in [
        "demo", "world", "base", "init", "sft", "tapo", "eval", "ask", "prompt", "data", "plan", "show", "parity",
        "devices",
    ] {
        assert!(starts(&format!("{command} ")), "{command}: {help}");
        let own = place.succeed(&[command, "--help"]);
        assert!(mentions(&own, &format!("Usage: fieldmark {command}")), "{own}");
    }
    let devices = place.succeed(&["devices"]);
    assert!(devices.contains("flex") && devices.contains("right (") && !devices.contains("WRONG"), "{devices}");
}

#[test]
fn a_recipe_is_shown_whole_and_what_is_shown_is_a_recipe() {
    let place = Place::new();
    place.write("first.toml", "seed = 7\n[sft]\nepochs = 2\nbatch = 2\n");
    place.write("second.toml", "[sft]\nbatch = 3\n");
    let shown = place.succeed(&["show", "-c", "first.toml", "-c", "second.toml", "--set", "tapo.epochs=9"]);
    for line in ["seed = 7 # first.toml", "epochs = 2 # first.toml", "batch = 3 # second.toml", "epochs = 9 # --set"] {
        let found = shown.lines().any(|shown| shown.split_whitespace().collect::<Vec<_>>().join(" ") == line);
        assert!(found, "{line}: {shown}");
    }
    place.write("whole.toml", &shown);
    let again = place.succeed(&["show", "-c", "whole.toml"]);
    let values = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.split("  # ").next()).map(|value| value.trim_end().into()).collect()
    };
    assert_eq!(values(&again), values(&shown));
    assert!(!again.contains("# default"));
    let schema: Value = serde_json::from_str(&place.succeed(&["show", "--schema"])).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
}

#[test]
fn semantic_rewards_are_those_of_the_encoder_that_the_recipe_names() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let prompt = "<image>Which?\n\nFirst think the question through and write your reasoning between <think> and </think>. \
                  Then write only the name between <answer> and </answer>.";
    place.conversations("sft.json", 4, |_, value| {
        value["messages"][0]["content"] = json!(prompt);
        value["messages"][1]["content"] = json!("<answer>Lim</answer>");
    });
    let sets = ["output=sft", "sft.epochs=30", "sft.schedule.lr=5e-3", "run.save_every=0", "run.tensorboard=false"];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    place.succeed(&["sft", "-c", "recipe.toml"].into_iter().chain(sets).collect::<Vec<_>>());

    let mut rows = [["a.png", "b.png", "c.png"], ["b.png", "a.png", "c.png"]].map(triplet);
    rows[1]["answer"] = json!("A photo of a Saint-Bernard, (great) dane!");
    place.write("tapo.jsonl", format!("{}\n{}\n", rows[0], rows[1]));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/siglip_tiny");
    let encoder = format!("model.text_encoder={}", folder.display());
    let sets = ["model.path=sft/checkpoint", &encoder, "tapo.rewards.semantic=0.5", "tapo.max_new_tokens=48"];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    place.succeed(&["tapo", "-c", "recipe.toml", "--set", "output=tapo"].into_iter().chain(sets).collect::<Vec<_>>());
    let reward = EmbeddingSimilarity::new(SiglipEmbedder::from_pretrained(&folder, &Device::flex()).unwrap());
    let mut between = 0;
    for rollout in lines(&place, "tapo/rollouts.jsonl") {
        let part = |name: &str| rollout["rewards"][name].as_f64().unwrap();
        let [response, truth] = ["response", "truth"].map(|key| rollout[key].as_str().unwrap());
        let expected = reward.score(&RewardInput::new(response, truth));
        assert!((part("semantic") - expected).abs() < 1e-6, "{rollout}");
        let sum = 0.9 * part("accuracy") + 0.1 * part("format") + 0.5 * part("semantic");
        assert!((rollout["reward"].as_f64().unwrap() - sum).abs() < 1e-12);
        between += usize::from(expected > 0.0 && expected < 0.99);
    }
    assert!(between > 0, "no answer was half right");
}

#[test]
fn a_plan_reads_no_weights_and_says_what_to_change() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    fs::remove_file(place.path("model/model.safetensors")).unwrap();
    for stage in ["sft", "tapo"] {
        let plan = ["plan", "-c", "recipe.toml", "--stage", stage];
        let printed = place.succeed(&plan);
        for text in ["weights", "moments of the optimiser", "gradients", "logits", "<- peak", "\npeak"] {
            assert!(printed.contains(text), "{text}: {printed}");
        }
        assert_eq!(printed.contains("keys and values"), stage == "tapo");
        assert!(place.succeed(&[&plan[..], &["--budget", "80GB"]].concat()).ends_with(" 80.00 GB\n"));
        let failed = place.run(&[&plan[..], &["--budget", "1MB"]].concat());
        let printed = String::from_utf8(failed.stdout).unwrap();
        assert_eq!(failed.status.code(), Some(1), "{printed}");
        // The budget, and behind it the least that is reached.
        let (_, advice) = printed.split_once(" 1.00 MB").unwrap_or_else(|| panic!("{printed}"));
        assert!(advice.contains(" MB"), "{printed}");
    }
    // A published checkpoint need not be there.
    let published = place.succeed(&["plan", "-c", "recipe.toml", "--set", "model.path=Qwen2.5-VL-7B-Instruct"]);
    assert!(published.starts_with("sft: 8.29 billion "), "{published}");
    place.write("wide.toml", "[data.sft]\nmax_tokens = 4096\n[model]\npath = \"Qwen2.5-VL-3B-Instruct\"\n");
    let advice = place.run(&["plan", "-c", "wide.toml", "--budget", "60GB"]);
    let printed = String::from_utf8(advice.stdout).unwrap();
    let flags = printed.trim_end().lines().last().unwrap().trim().to_owned();
    assert!(flags.starts_with("--set "), "{printed}");
    let again = ["plan", "-c", "wide.toml", "--budget", "60GB"].into_iter().chain(flags.split(' '));
    place.succeed(&again.collect::<Vec<_>>());
    place.refuse(&["plan", "-c", "recipe.toml", "--set", "model.path=absent"]).names("absent/config.json");
    // A text encoder is counted where a reward needs it: 110 million numbers of f32.
    let semantic = ["plan", "-c", "recipe.toml", "--stage", "tapo", "--set", "tapo.rewards.semantic=1"];
    let with = |encoder: &'static str| [&semantic[..], &["--set", encoder]].concat();
    let named = place.succeed(&with("model.text_encoder=google/siglip-base-patch16-256"));
    assert!(named.lines().any(|line| line.starts_with("  text encoder ") && line.ends_with("441 MB")), "{named}");
    assert!(!place.succeed(&["plan", "-c", "recipe.toml", "--stage", "tapo"]).contains("text encoder"));
    place.refuse(&with("model.text_encoder=other")).names_key("model.text_encoder").names("other/config.json");
    place.refuse(&semantic).names_key("tapo.rewards.semantic").suggests("model.text_encoder");
}
