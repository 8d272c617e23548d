//! Whatever is wrong with what a user gives: exit code 2, one line that names file, row or key, and nothing half-written.

mod support;

use std::{collections::BTreeMap, fs};

use base64::Engine;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use support::{
    Place, crc32, lines, question,
    refusal::{mentions, mentions_key},
    triplet,
};

fn ask<'a>(image: &'a str, question: &'a str) -> [&'a str; 8] {
    ["ask", "--model", "model", "--image", image, "--max-new-tokens", "2", question]
}

#[test]
fn photographs() {
    let place = Place::new();
    let photo = image::RgbImage::from_fn(80, 80, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8]));
    photo.save(place.path("whole.jpg")).unwrap();
    for name in ["whole.jpg", "a.png"] {
        let bytes = fs::read(place.path(name)).unwrap();
        place.write(&format!("cut.{name}"), &bytes[..bytes.len() / 2]);
    }
    place.write("text.jpg", "no image at all");
    place.write("empty.png", "");
    fs::File::create(place.path("huge.jpg")).unwrap().set_len(300 << 20).unwrap();
    // A PNG header that announces 100,000 × 100,000 pixels.
    let mut bomb = fs::read(place.path("a.png")).unwrap();
    bomb[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    place.write("bomb.png", bomb);
    image::RgbImage::new(3000, 2).save(place.path("thin.png")).unwrap();
    let refuse = |name: &str| {
        let refusal = place.refuse(&ask(name, "Which?"));
        refusal.names(name);
        refusal
    };
    refuse("missing.png").names("No such file");
    // Damaged files are of one format, others of none of those that are read.
    refuse("cut.whole.jpg").names("JPEG").leaves_out("WebP");
    refuse("cut.a.png").names("PNG").leaves_out("WebP");
    for name in ["text.jpg", "empty.png"] {
        refuse(name).suggests("JPEG").suggests("PNG").suggests("WebP");
    }
    refuse("huge.jpg").names("314572800");
    place.write("pointer.jpg", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    refuse("pointer.jpg").suggests("git lfs pull");
    refuse("bomb.png").names("100000×100000");
    refuse("thin.png").names("aspect ratio").names("200");
    refuse("model").leaves_out("WebP");
    place.write("phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic");
    refuse("phone.heic").names("HEIC").suggests("JPEG");
    // A JPEG of which the end was lost and closed again.
    let bytes = fs::read(place.path("whole.jpg")).unwrap();
    place.write("closed.jpg", [&bytes[..bytes.len() * 2 / 3], &[0xff, 0xd9]].concat());
    refuse("closed.jpg").names("JPEG");
    refuse("A.png").suggests("a.png");
    refuse("file:///nowhere/a.png").names("No such file");
    place.refuse(&ask("https://example.org/a.png", "Which?")).names("--image").names("https://example.org/a.png");
    place.refuse(&ask("data:image/png;base64,a*b", "Which?")).names("--image");
}

#[test]
fn a_photograph_is_named_as_rows_name_it() {
    let place = Place::new();
    let expected = place.succeed(&ask("a.png", "Which?"));
    fs::copy(place.path("a.png"), place.path("my fruit.png")).unwrap();
    let url = format!("file://{}", place.path("my%20fruit.png").display());
    let bytes = fs::read(place.path("a.png")).unwrap();
    let data = format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes));
    for image in [&url, &data] {
        assert_eq!(place.succeed(&ask(image, "Which?")), expected, "{image}");
    }
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// Rewrites the checkpoint's weights.
fn edit_weights(place: &Place, change: impl FnOnce(&mut Tensors)) {
    let path = place.path("model/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = parsed
        .tensors()
        .into_iter()
        .map(|(name, view)| (name.to_string(), (view.shape().to_vec(), view.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views =
        tensors.iter().map(|(name, (shape, data))| (name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn checkpoints() {
    type Change = Box<dyn FnOnce(&Place)>;
    let weights = |change: fn(&mut Tensors)| -> Change { Box::new(move |place| edit_weights(place, change)) };
    let config = |key: &'static str, value: Value| -> Change {
        Box::new(move |place| {
            let path = place.path("model/config.json");
            let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            match key.split_once('.') {
                Some((section, key)) => config[section][key] = value,
                None => config[key] = value,
            }
            fs::write(path, config.to_string()).unwrap();
        })
    };
    let without = |name: &'static str| -> Change {
        Box::new(move |place| fs::remove_file(place.path("model").join(name)).unwrap())
    };
    let refuse = |change: Change| {
        let place = Place::new();
        change(&place);
        let refusal = place.refuse(&ask("a.png", "Which?"));
        refusal.names("model");
        refusal
    };
    // Sizes beyond all memory are refused before anything of that size is made.
    for (key, value, named) in [
        ("num_hidden_layers", 1_000_000_000_000_u64, "num_hidden_layers"),
        ("vocab_size", 1 << 60, "vocab_size"),
        ("vision_config.depth", 1 << 40, "vision_config.depth"),
        ("vision_config.patch_size", 1 << 40, "patch_size"),
        ("max_position_embeddings", u64::MAX, "max_position_embeddings"),
        ("vocab_size", 1 << 24, "embed_tokens"),
        ("intermediate_size", 1 << 24, "gate_proj"),
    ] {
        let refusal = refuse(config(key, value.into()));
        assert!(mentions(&format!("{refusal:?}"), named), "{key}: {refusal:?}");
    }
    refuse(weights(|t| drop(t.remove("model.norm.weight")))).names_key("model.norm.weight").names("config.json");
    refuse(weights(|t| drop(t.insert("model.extra.weight".into(), (vec![1], vec![0; 4])))))
        .names_key("model.extra.weight")
        .names("config.json");
    refuse(weights(|t| drop(t.insert("model.norm.weight".into(), (vec![2, 32], vec![0; 256])))))
        .names_key("model.norm.weight")
        .names("[2, 32]")
        .names("[64]")
        .names("config.json");
    refuse(weights(|t| {
        let (_, data) = t.get_mut("model.norm.weight").unwrap();
        data[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
    }))
    .names_key("model.norm.weight")
    .names("2");
    refuse(Box::new(|place| {
        let path = place.path("model/model.safetensors");
        let bytes = fs::read(&path).unwrap();
        fs::write(path, &bytes[..bytes.len() - 100]).unwrap();
    }))
    .names("model/model.safetensors")
    .leaves_out("No such file");
    for name in ["model.safetensors", "config.json", "preprocessor_config.json", "tokenizer.json"] {
        refuse(without(name)).names(name).leaves_out("No such file");
    }
    refuse(config("num_hidden_layers", json!(4))).names("model.layers.3").names("config.json");
    refuse(config("num_hidden_layers", json!(2))).names("model.layers.2").names("config.json");
    refuse(config("intermediate_size", json!(97))).names("config.json").names("[97, 64]");
    refuse(config("hidden_size", json!(63))).names_key("hidden_size").names("63");
    refuse(config("vocab_size", json!(10))).names("config.json").names("10");
    refuse(config("vision_config.patch_size", json!(16))).names("model/config.json").names("preprocessor_config.json");
    refuse(config("image_token_id", json!(1))).names("model/config.json").names_key("image_token_id").names("1");
    refuse(config("model_type", json!("llava"))).names_key("model_type").names("llava");
    for (file, content) in [("config.json", "{ no JSON"), ("tokenizer.json", "{}"), ("generation_config.json", "[")] {
        let name = format!("model/{file}");
        let damage: Change = {
            let name = name.clone();
            Box::new(move |place| place.write(&name, content))
        };
        refuse(damage).names(&name).leaves_out("No such file");
    }
    let place = Place::new();
    let mut elsewhere = ask("a.png", "Which?");
    elsewhere[2] = "nowhere";
    place.refuse(&elsewhere).names("nowhere");
}

#[test]
fn conversations_leave_no_output() {
    let refuse = |change: fn(&mut Value)| {
        let place = Place::new();
        place.write("recipe.toml", place.recipe());
        place.write("text.png", "no image");
        place.conversations("sft.json", 3, |row, value| {
            if row == 1 {
                change(value);
            }
        });
        let before = place.listing();
        let refusal = place.refuse(&["sft", "-c", "recipe.toml"]);
        assert_eq!(place.listing(), before);
        refusal.names("sft.json:2");
        refusal
    };
    refuse(|row| {
        row["messages"][0]["content"] = json!("Which fruit?");
        row["images"] = json!(["a.png", "b.png"]);
    })
    .names("0")
    .names("2")
    .suggests("<image>");
    refuse(|row| row["images"] = json!(["a.png", "b.png", "c.png"]))
        .names("1")
        .names("<image>")
        .names("3")
        .names("images");
    refuse(|row| row["messages"][1]["content"] = json!(" ")).names("content");
    refuse(|row| row["messages"][1]["role"] = json!("user")).names("message 2").names("role").names("user");
    refuse(|row| row["images"] = json!(["gone.png"])).names("gone.png");
    refuse(|row| row["images"] = json!(["text.png"])).names("text.png");
    refuse(|row| row["messages"][1]["content"] = json!("word ".repeat(2000))).names("512").suggests("max_pixels");
    refuse(|row| *row = json!(7)).names("number").names("object");
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let refuse = || place.refuse(&["sft", "-c", "recipe.toml"]);
    refuse().names("sft.json").names("No such file");
    for content in ["[{\"messages\": [", "[]"] {
        place.write("sft.json", content);
        refuse().names("sft.json").leaves_out("No such file");
    }
}

#[test]
fn triplets_and_questions_leave_no_output() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let good = triplet(["a.png", "b.png", "c.png"]);
    let mut none = good.clone();
    none.as_object_mut().unwrap().remove("negative");
    let mut alone = good.clone();
    alone["positive"] = json!([]);
    let mut three = good.clone();
    three["problem"] = json!("<image><image><image>Which?");
    let mut long = good.clone();
    long["problem"] = json!(format!("<image>{}", "word ".repeat(300)));
    place.write("text.png", "no image");
    let refuse = |row: &Value| {
        place.write("tapo.jsonl", format!("{good}\n{row}\n"));
        let before = place.listing();
        let refusal = place.refuse(&["tapo", "-c", "recipe.toml"]);
        assert_eq!(place.listing(), before);
        refusal.names("tapo.jsonl:2");
        refusal
    };
    refuse(&none).names("negative").suggests("tapo.negative").suggests("tapo.loss.gamma");
    refuse(&alone).names("positive").suggests("tapo.positive_rollouts");
    refuse(&three).names("3").names("<image>").names("1").names("anchor");
    refuse(&triplet(["a.png", "gone.png", "c.png"])).names("gone.png");
    refuse(&triplet(["a.png", "b.png", "text.png"])).names("text.png");
    refuse(&long).names("511").suggests("max_pixels");

    let mut truth = question("a.png", "Pear");
    truth["ground_truth"] = json!("Pear");
    let mut long = question("a.png", "Lime");
    long["question"] = json!("word ".repeat(300));
    let refuse = |row: &Value| {
        place.write("fruit_seen.jsonl", format!("{}\n{row}\n", question("a.png", "Lime")));
        let refusal = place.refuse(&["eval", "-c", "recipe.toml"]);
        assert_eq!(fs::read_dir(place.path("out")).map_or(0, Iterator::count), 0);
        refusal
    };
    refuse(&truth).names("fruit_seen.jsonl:2").names("Pear");
    refuse(&question("gone.png", "Lime")).names("fruit seen").names("row 2").names("gone.png");
    // A damaged photograph or a prompt that is too long costs its row alone.
    for (row, named) in [(question("text.png", "Lime"), "text.png"), (long, "512")] {
        place.write("fruit_seen.jsonl", format!("{}\n{row}\n", question("a.png", "Lime")));
        let ended = place.run(&["eval", "-c", "recipe.toml", "--overwrite"]);
        assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
        let rows = lines(&place, "out/predictions.jsonl");
        assert_eq!(rows.len(), 4);
        for row in rows {
            let error = row["error"].as_str().unwrap_or_default();
            let is_named = mentions(error, "fruit seen, row 2") && mentions(error, named);
            assert!(if row["row"] == 2 { is_named } else { error.is_empty() }, "{row}");
        }
    }
}

#[test]
fn prompts_that_do_not_fit() {
    let place = Place::new();
    let long = "word ".repeat(300);
    place.refuse(&ask("a.png", &long)).names("question").names("512").leaves_out("empty");
    place.refuse(&ask("a.png", "<image> or <image>?")).names("question").names("2").names("1").leaves_out("empty");
    place.refuse(&ask("a.png", " ")).names("question").names("empty");
    let with = |settings: &[&'static str]| place.refuse(&[&ask("a.png", "Which?")[..], settings].concat());
    with(&["--temperature=-1"]).names_key("temperature").names("0");
    with(&["--min-pixels", "9000", "--max-pixels", "5000"])
        .names("--min-pixels")
        .names("9000")
        .names("max_pixels")
        .names("5000");
    with(&["--max-pixels", "0"]).names("--max-pixels").names("0");
    for pixels in ["999999999", "18446744073709551615"] {
        with(&["--min-pixels", pixels]).names("--min-pixels").names(pixels).names("512");
    }
    // Within the largest image of the checkpoint, but not of its context.
    with(&["--min-pixels", "500000"]).names("--min-pixels").names("637").names("512");
}

#[test]
fn image_sizes_that_fit_no_context() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    place.conversations("sft.json", 2, |_, _| ());
    place.write("tapo.jsonl", triplet(["a.png", "b.png", "c.png"]).to_string());
    place.write("fruit_seen.jsonl", question("a.png", "Lime").to_string());
    let refuse = |stage: &str, sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        place.refuse(&[stage, "-c", "recipe.toml"].into_iter().chain(sets).collect::<Vec<_>>())
    };
    for (stage, section) in [("sft", "data.sft.sizes"), ("tapo", "data.tapo.sizes"), ("eval", "eval")] {
        let (min, max) = (format!("{section}.min_pixels"), format!("{section}.max_pixels"));
        let set = |key: &str, value: &str| format!("{key}={value}");
        let huge = [set(&min, "900000000000"), set(&max, "900000000000")];
        refuse(stage, &[&huge[0], &huge[1]]).names_key(&min).names("512");
        refuse(stage, &[&set(&min, "7000"), &set(&max, "6000")]).names_key(&min).names("7000").names("6000");
        refuse(stage, &[&set(&min, "0"), &set(&max, "0")]).names_key(&max);
        refuse(stage, &[&set(&min, "9223372036854775807")]).names_key(&min);
    }
    let huge = ["data.sft.sizes.min_pixels=900000000000", "data.sft.sizes.max_pixels=900000000000"];
    let refusal = refuse("sft", &[huge[0], huge[1], "data.sft.sizes.resize=area"]);
    refusal.names_key("data.sft.sizes.min_pixels").names("900000000000").names("512");
    // What a row's limit does not allow is refused before the image is enlarged to 490 tokens.
    let sizes = ["data.sft.sizes.min_pixels=384160", "data.sft.sizes.max_pixels=400000", "data.sft.max_tokens=100"];
    refuse("sft", &sizes).names("sft.json:1").names("100");
}

#[test]
fn limits_of_image_files_have_keys_and_flags() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    place.conversations("sft.json", 1, |_, _| ());
    place.write("fruit_seen.jsonl", question("a.png", "Lime").to_string());
    let with = |settings: &[&'static str]| place.refuse(&[&ask("a.png", "Which?")[..], settings].concat());
    with(&["--max-decoded-pixels", "4199"]).names("a.png").names("60×70").suggests("--max-decoded-pixels");
    with(&["--max-file-bytes", "100"]).names("a.png").names("100").suggests("--max-file-bytes");
    let exactly = [&ask("a.png", "Which?")[..], &["--max-decoded-pixels", "4200"]].concat();
    place.succeed(&exactly);
    for (set, key) in [
        ("data.max_decoded_pixels=4199", "data.max_decoded_pixels"),
        ("data.max_file_bytes=100", "data.max_file_bytes"),
    ] {
        place.refuse(&["sft", "-c", "recipe.toml", "--set", set]).names("sft.json:1").names("a.png").names_key(key);
        // In an evaluation it costs the row.
        let output = format!("output={key}");
        let run = place.run(&["eval", "-c", "recipe.toml", "--set", set, "--set", &output]);
        assert_eq!(run.status.code(), Some(1));
        let rows = fs::read_to_string(place.path(&format!("{key}/predictions.jsonl"))).unwrap();
        for row in rows.lines().map(|row| serde_json::from_str::<serde_json::Value>(row).unwrap()) {
            let error = row["error"].as_str().unwrap();
            assert!(error.contains("a.png") && error.contains(key), "{error}");
        }
        // Whatever else such a row says, it is scored as wrong.
        place.write("finished.jsonl", rows.replace("\"finished\":false", "\"finished\":true"));
        place.succeed(&["eval", "--score-only", "finished.jsonl"]);
    }
}

#[test]
fn recipes_and_settings() {
    let place = Place::new();
    place.conversations("sft.json", 2, |_, _| ());
    place.conversations("broken.json", 1, |_, row| row["images"] = "absent.png".into());
    // Found when every sample is tried.
    place.conversations("damaged.json", 1, |_, row| row["images"] = "damaged.png".into());
    place.write("damaged.png", "no picture");
    place.write("recipe.toml", place.recipe());
    place.write("unknown.toml", "[sft]\nlearning_rat = 1\n");
    place.write("typed.toml", "[sft]\nepochs = \"three\"\n");
    place.write("broken.toml", "[sft\n");
    let before = place.listing();
    let refuse = |args: &[&str]| {
        let refusal = place.refuse(&[&["sft"], args].concat());
        assert_eq!(place.listing(), before, "{args:?}");
        refusal
    };
    refuse(&["-c", "unknown.toml"]).names("unknown.toml").names_key("sft.learning_rat").suggests("epochs");
    refuse(&["-c", "typed.toml"]).names("typed.toml").names_key("sft.epochs").names("three");
    refuse(&["-c", "broken.toml"]).names("broken.toml:1").names("TOML");
    refuse(&["-c", "absent.toml"]).names("absent.toml").names("No such file");
    let set = |sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        refuse(&["-c", "recipe.toml"].into_iter().chain(sets).collect::<Vec<_>>())
    };
    set(&["sft.epoch=1"]).names("--set sft.epoch=1").names_key("sft.epoch").suggests("sft.epochs");
    set(&["sft.epochs=0"]).names_key("sft.epochs").names("0").names("1");
    set(&["sft.schedule.lr=nan"]).names_key("sft.schedule.lr").names("NaN");
    set(&["sft.adamw.beta1=2"]).names_key("sft.adamw.beta1").names("2");
    set(&["data.sft.sizes.max_pixels=0"]).names("data.sft.sizes").names("max_pixels").names("0");
    set(&["data.sft.validation_rows=2"]).names_key("data.sft.validation_rows").names("2");
    set(&["data.sft.validation_rows=5"]).names_key("data.sft.validation_rows").names("5").names("2");
    set(&["data.sft.validation_rows=1", "data.sft.validation=sft.json"])
        .names_key("data.sft.validation_rows")
        .names("1")
        .names_key("data.sft.validation");
    set(&["data.sft.validation=absent.json"]).names("absent.json").names("No such file");
    set(&["data.sft.validation=broken.json"]).names("broken.json:1").names("absent.png");
    set(&["data.sft.validation=damaged.json"]).names("damaged.json:1").names("damaged.png");
    set(&["model.path="]).suggests("--set model.path=DIR");
    set(&["output="]).suggests("--set output=DIR");
    set(&["output=model"]).names("model").suggests("--set output=DIR").suggests("--overwrite");
    refuse(&["-c", "recipe.toml", "--device", "flax"]).names("flax").suggests("flex");
    refuse(&["-c", "recipe.toml", "--device", "flex:1"]).names("flex:1").names("number");
}

#[test]
fn a_recipe_is_needed_and_set_alone_is_one() {
    let place = Place::new();
    for (command, keys) in [
        ("sft", &["model.path=DIR", "data.sft.file=FILE", "output=DIR"][..]),
        ("tapo", &["model.path=DIR", "data.tapo.file=FILE", "output=DIR"]),
        ("eval", &["model.path=DIR", "eval.files=", "output=DIR"]),
        ("plan", &["model.path=DIR"]),
    ] {
        let refusal = place.refuse(&[command]);
        refusal.at_once().names(command).names("-c FILE");
        for key in keys {
            refusal.suggests(&format!("--set {key}"));
        }
    }
    assert!(place.succeed(&["plan", "--set", "model.path=model"]).contains("peak"));
    place.refuse(&["sft", "--set", "model.path=model"]).names("output");
}

#[test]
fn photographs_for_the_demo() {
    let place = Place::new();
    let refuse = || place.refuse(&["demo", "--out", "out", "--photos", "."]);
    refuse().at_once().names("labels.csv").names("super_category").names("8 classes");
    place.write("labels.csv", "path,class,super_category,split\na.png,Lime,Citrus,train\n");
    refuse().at_once().names("labels.csv").names("1").names("8");
    let rows: String =
        (0..8).map(|i| format!("{i}.png,Class {i},Fruit,train\n{i}b.png,Class {i},Fruit,test\n")).collect();
    place.write("labels.csv", format!("path,class,super_category,split\n{rows}"));
    refuse().at_once().names("labels.csv").names("Class 0").names("2");
    let help = place.succeed(&["demo", "--help"]);
    assert!(mentions(&help, "labels.csv") && mentions(&help, "super_category"), "{help}");
}

#[test]
fn training_refuses_settings_before_it_looks_at_data() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let before = place.listing();
    // Neither conversations nor triplets are there: the setting comes first.
    let refuse = |stage: &str, sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let refusal = place.refuse(&[stage, "-c", "recipe.toml"].into_iter().chain(sets).collect::<Vec<_>>());
        assert_eq!(place.listing(), before);
        refusal.at_once();
        refusal
    };
    refuse("sft", &["model.dtype=f16"]).names_key("model.dtype").names("f16").suggests("bf16");
    refuse("tapo", &["model.parts.vision=f16"]).names_key("model.parts.vision").names("f16").suggests("bf16");
    for (stage, key, value) in [
        ("sft", "sft.batch", "0"),
        ("tapo", "tapo.batch", "0"),
        ("tapo", "tapo.rewards.format", "-1"),
        ("tapo", "tapo.rewards.semantic", "-1"),
        ("tapo", "tapo.patches.probability", "2"),
        ("tapo", "tapo.estimator", "gae"),
        ("tapo", "tapo.loss.clip_dual", "1"),
        ("tapo", "tapo.loss.sampler_cap", "0.5"),
        ("tapo", "tapo.loss.importance", "word"),
        ("tapo", "tapo.loss.policy", "ppo"),
        ("tapo", "tapo.schedule.lr", "NaN"),
    ] {
        refuse(stage, &[&format!("{key}={}", value.to_lowercase())]).names_key(key).names(value);
    }
    // Settings that contradict each other, or that nothing uses.
    for (policy, key, user) in
        [("clipped", "sapo_tau_neg", "sapo"), ("cispo", "sapo_tau_pos", "sapo"), ("sapo", "cispo_max", "cispo")]
    {
        let sets = [format!("tapo.loss.policy={policy}"), format!("tapo.loss.{key}=3.5")];
        refuse("tapo", &[&sets[0], &sets[1]])
            .names_key(&format!("tapo.loss.{key}"))
            .names("3.5")
            .names_key("tapo.loss.policy")
            .names(user);
        let sets = [format!("tapo.loss.policy={user}"), format!("tapo.loss.{key}=0")];
        refuse("tapo", &[&sets[0], &sets[1]]).names_key(&format!("tapo.loss.{key}")).names("0");
    }
    refuse("tapo", &["tapo.think=false"]).names_key("tapo.rewards.format").names("0.1").suggests("answer_only");
    refuse("tapo", &["tapo.rewards.answer_only=0.2"])
        .names_key("tapo.rewards.answer_only")
        .names("0.2")
        .names_key("tapo.think");
    let alone = ["tapo.think=false", "tapo.rewards.format=0", "tapo.rewards.answer_only=0.1"];
    refuse("tapo", &[alone[0], alone[1], alone[2], "data.tapo.prompt=rl"])
        .names_key("data.tapo.prompt")
        .names_key("tapo.think")
        .suggests("rl_no_think");
    refuse("tapo", &["data.tapo.prompt=rl_no_think"])
        .names_key("data.tapo.prompt")
        .names("rl_no_think")
        .names_key("tapo.think");
    refuse("tapo", &["tapo.rewards.exakt=1"])
        .names_key("tapo.rewards.exakt")
        .suggests("accuracy")
        .suggests("exact")
        .suggests("format");
    refuse("tapo", &["tapo.filter.key=exact"])
        .names_key("tapo.filter.key")
        .names("exact")
        .suggests("accuracy")
        .suggests("format");
    refuse("tapo", &["tapo.rewards.semantic=0.5"]).names_key("tapo.rewards.semantic").suggests("model.text_encoder");
    refuse("tapo", &["model.dtype=bf16", "tapo.adamw.half=none"])
        .names_key("model.dtype")
        .names("bf16")
        .names_key("tapo.adamw.half")
        .names("none");
    // Runs in which nothing is learned.
    let frozen = "train={vision=false,projector=false,decoder=false}";
    for stage in ["sft", "tapo"] {
        refuse(stage, &[&format!("{stage}.{frozen}")]).names_key(&format!("{stage}.train"));
        refuse(stage, &[&format!("{stage}.{frozen}"), "lora.rank=2"]).names_key(&format!("{stage}.train"));
    }
    let group = |estimator: &str, anchor: usize, positive: usize| {
        let counts = [format!("tapo.anchor_rollouts={anchor}"), format!("tapo.positive_rollouts={positive}")];
        refuse("tapo", &[&format!("tapo.estimator={estimator}"), &counts[0], &counts[1]])
    };
    for estimator in ["grpo", "rloo", "dr_grpo", "mrn", "gdpo"] {
        group(estimator, 1, 0).names_key("tapo.anchor_rollouts").names_key("tapo.positive_rollouts").names("2");
        group(estimator, 0, 1).names_key("tapo.anchor_rollouts").names_key("tapo.positive_rollouts").names("2");
    }
    let weights = ["tapo.rewards.accuracy=0", "tapo.rewards.format=0", "tapo.rewards.exact=0"];
    refuse("tapo", &weights).names_key("tapo.rewards").names("0");
    refuse("tapo", &["tapo.temperature=0"]).names_key("tapo.temperature").names("0");
    refuse("tapo", &["tapo.filter.low=0.3", "tapo.filter.high=0.4"])
        .names_key("tapo.filter.low")
        .names("0.3")
        .names_key("tapo.filter.high")
        .names("0.4")
        .suggests("tapo.filter.enabled");
    // An encoder that is not there comes before the data and the model, whose weights are damaged.
    fs::write(place.path("model/model.safetensors"), "damaged").unwrap();
    let encoder = |set: &str| refuse("tapo", &["tapo.rewards.semantic=0.5", set]);
    encoder("model.text_encoder=absent").names_key("model.text_encoder").names("absent/config.json");
    encoder("model.text_encoder=model").names_key("model_type").names("qwen2_5_vl");
}

#[test]
fn an_adapter_of_no_layer_is_refused_before_the_weights_are_loaded() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    place.conversations("sft.json", 2, |_, _| ());
    // Only when they are loaded is a tensor with another name missed.
    let weights = place.path("model/model.safetensors");
    let renamed = fs::read(&weights).unwrap();
    let at = renamed.windows(10).position(|name| name == b"model.norm").unwrap();
    fs::write(&weights, [&renamed[..at], b"model.morn", &renamed[at + 10..]].concat()).unwrap();
    for stage in ["sft", "tapo"] {
        let refuse = |target: &str| {
            let target = format!("lora.targets=[{target:?}]");
            let refusal = place.refuse(&[stage, "-c", "recipe.toml", "--set", "lora.rank=2", "--set", &target]);
            refusal.at_once();
            refusal
        };
        refuse("q_prog").names_key("lora.targets").names("q_prog").suggests("q_proj").leaves_out("safetensors");
    }
}

#[test]
fn data_check_and_parity() {
    let place = Place::new();
    place.conversations("rows.json", 3, |row, value| {
        if row == 2 {
            value["images"] = json!([]);
        }
    });
    let output = place.run(&["data", "check", "rows.json"]);
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(report.contains("rows      3 (2 good)") && report.contains("rows.json:3: "), "{report}");
    place.refuse(&["data", "check", "rows.json"]).names("rows.json").names("1");
    place.conversations("rows.json", 3, |_, _| ());
    assert!(place.succeed(&["data", "check", "rows.json"]).contains("images    3 (3 found"));
    place.refuse(&["data", "check", "none.json"]).names("none.json").names("No such file");
    place.refuse(&["data", "check", "rows.json", "--images", "nowhere"]).names("nowhere").leaves_out("rows.json");
    place.refuse(&["parity", "nowhere"]).names("nowhere");
    place.refuse(&["parity", "model"]).names("model").suggests("expected.safetensors").suggests("cases.json");
    fs::create_dir(place.path("chats")).unwrap();
    place.write("chats/cases.json", "{\"cases\": 7}");
    place.refuse(&["parity", "chats"]).names("chats/cases.json");
}

/// What is looked for in an error is found as a whole or not at all.
#[test]
fn names_are_whole() {
    let text = "error: /tmp/x/rows.json:31: `sft.epochs` = 12: did you mean `sft.batch`? row 21, --set a=b";
    for (wanted, found) in [
        ("rows.json", true),
        ("rows.json:31", true),
        ("rows.json:3", false),
        ("ows.json", false),
        ("12", true),
        ("1", false),
        ("row 2", false),
        ("row 21", true),
        ("--set a=b", true),
        ("--set a=", true),
        ("sft.epoch", false),
    ] {
        assert_eq!(mentions(text, wanted), found, "{wanted}");
    }
    for (wanted, found) in [("sft.epochs", true), ("sft.batch", true), ("epochs", false), ("sft", false)] {
        assert_eq!(mentions_key(text, wanted), found, "{wanted}");
    }
}
