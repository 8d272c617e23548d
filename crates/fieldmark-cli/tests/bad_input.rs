//! Whatever is wrong with what a user gives: exit code 2, one line that names file, row or key, and nothing half-written.

mod support;

use std::{collections::BTreeMap, fs};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use support::{Place, question, triplet};

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
    for (name, says) in [
        ("missing.png", "No such file"),
        ("cut.whole.jpg", "JPEG file is cut short or damaged"),
        ("cut.a.png", "PNG file is cut short or damaged"),
        ("text.jpg", "give a JPEG, PNG or WebP file"),
        ("empty.png", "give a JPEG, PNG or WebP file"),
        ("huge.jpg", "over the limit"),
        ("bomb.png", "100000×100000 pixels, over the limit"),
        ("thin.png", "aspect ratio"),
        ("model", ""),
    ] {
        let error = place.refuse(&ask(name, "Which?"));
        assert!(error.contains(name) && error.contains(says), "{name}: {error}");
    }
}

/// CRC-32 as PNG has it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
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
    let cases: Vec<(Change, &str)> = vec![
        (weights(|t| drop(t.remove("model.norm.weight"))), "missing, first `model.norm.weight`"),
        (
            weights(|t| drop(t.insert("model.extra.weight".into(), (vec![1], vec![0; 4])))),
            "no place in this model, first `model.extra.weight`",
        ),
        (
            weights(|t| drop(t.insert("model.norm.weight".into(), (vec![2, 32], vec![0; 256])))),
            "`model.norm.weight` has shape [2, 32], but config.json implies [64]",
        ),
        (
            weights(|t| {
                let (_, data) = t.get_mut("model.norm.weight").unwrap();
                data[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
            }),
            "`model.norm.weight` holds a value that is not finite (first at element 2)",
        ),
        (
            Box::new(|place| {
                let path = place.path("model/model.safetensors");
                let bytes = fs::read(&path).unwrap();
                fs::write(path, &bytes[..bytes.len() - 100]).unwrap();
            }),
            "model.safetensors: not a readable safetensors file",
        ),
        (without("model.safetensors"), "model.safetensors: No such file"),
        (without("config.json"), "config.json: No such file"),
        (without("tokenizer.json"), "tokenizer.json: No such file"),
        (without("preprocessor_config.json"), "preprocessor_config.json: No such file"),
        (config("num_hidden_layers", json!(4)), "missing, first `model.layers.3."),
        (config("num_hidden_layers", json!(2)), "no place in this model, first `model.layers.2."),
        (config("intermediate_size", json!(97)), "config.json implies [97, 64]"),
        (config("hidden_size", json!(63)), "does not divide hidden_size 63"),
        (config("vocab_size", json!(10)), "config.json"),
        (config("vision_config.patch_size", json!(16)), "disagrees with preprocessor_config.json"),
        (config("image_token_id", json!(1)), "`image_token_id` and the other vision tokens"),
        (config("model_type", json!("llava")), "model_type"),
        (Box::new(|place| place.write("model/config.json", "{ no JSON")), "config.json: not a valid configuration"),
        (Box::new(|place| place.write("model/tokenizer.json", "{}")), "tokenizer.json"),
        (Box::new(|place| place.write("model/generation_config.json", "[")), "generation_config.json"),
    ];
    for (change, says) in cases {
        let place = Place::new();
        change(&place);
        let error = place.refuse(&ask("a.png", "Which?"));
        assert!(error.contains(says) && error.contains("model"), "{says}: {error}");
    }
    let place = Place::new();
    let mut elsewhere = ask("a.png", "Which?");
    elsewhere[2] = "nowhere";
    assert!(place.refuse(&elsewhere).contains("nowhere: no such folder"));
}

#[test]
fn conversations_leave_no_output() {
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 8] = [
        (
            |row| {
                row["messages"][0]["content"] = json!("Which fruit?");
                row["images"] = json!([]);
            },
            "no image; name one in \"images\"",
        ),
        (|row| row["images"] = json!(["a.png", "b.png"]), "1 <image> in the text but 2 in \"images\""),
        (|row| row["messages"][1]["content"] = json!(" "), "field \"content\" is empty"),
        (|row| row["messages"][1]["role"] = json!("user"), "message 2 has the role \"user\""),
        (|row| row["images"] = json!(["gone.png"]), "image gone.png not found"),
        (|row| row["images"] = json!(["text.png"]), "text.png"),
        (|row| row["messages"][1]["content"] = json!("word ".repeat(2000)), "over the limit of 512"),
        (|row| *row = json!(7), "a JSON number where an object was expected"),
    ];
    for (change, says) in cases {
        let place = Place::new();
        place.write("recipe.toml", place.recipe());
        place.write("text.png", "no image");
        place.conversations("sft.json", 3, |row, value| {
            if row == 1 {
                change(value);
            }
        });
        let before = place.listing();
        let error = place.refuse(&["sft", "-c", "recipe.toml"]);
        assert!(error.contains("sft.json:2: ") && error.contains(says), "{error}");
        assert_eq!(place.listing(), before);
    }
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    assert!(place.refuse(&["sft", "-c", "recipe.toml"]).contains("sft.json: cannot be read"));
    place.write("sft.json", "[{\"messages\": [");
    assert!(place.refuse(&["sft", "-c", "recipe.toml"]).contains("sft.json"));
    place.write("sft.json", "[]");
    assert!(place.refuse(&["sft", "-c", "recipe.toml"]).contains("sft.json: no rows"));
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
    let mut two = good.clone();
    two["problem"] = json!("<image><image>Which?");
    let mut long = good.clone();
    long["problem"] = json!(format!("<image>{}", "word ".repeat(300)));
    place.write("text.png", "no image");
    for (row, says) in [
        (none, "no negative; name one in \"negative\""),
        (alone, "no positive; name one in \"positive\", or set tapo.positive_rollouts = 0"),
        (two, "2 <image> in the text but 1 in \"anchor\""),
        (triplet(["a.png", "gone.png", "c.png"]), "image gone.png not found"),
        (triplet(["a.png", "b.png", "text.png"]), "text.png"),
        (long, "over the limit of 511"),
    ] {
        place.write("tapo.jsonl", format!("{good}\n{row}\n"));
        let error = place.refuse(&["tapo", "-c", "recipe.toml"]);
        assert!(error.contains("tapo.jsonl:2: ") && error.contains(says), "{error}");
    }
    let mut truth = question("a.png", "Pear");
    truth["ground_truth"] = json!("Pear");
    let mut long = question("a.png", "Lime");
    long["question"] = json!("word ".repeat(300));
    for (row, says) in [
        (truth, "fruit_seen.jsonl:2: the ground truth \"Pear\" is not among the options"),
        (question("gone.png", "Lime"), "fruit seen, row 2: image gone.png not found"),
        (question("text.png", "Lime"), "fruit seen, row 2: "),
        (long, "fruit seen, row 2: the prompt has "),
    ] {
        place.write("fruit_seen.jsonl", format!("{}\n{row}\n", question("a.png", "Lime")));
        let error = place.refuse(&["eval", "-c", "recipe.toml"]);
        assert!(error.contains(says), "{error}");
        assert_eq!(fs::read_dir(place.path("out")).map_or(0, Iterator::count), 0);
    }
}

#[test]
fn prompts_that_do_not_fit() {
    let place = Place::new();
    let long = "word ".repeat(300);
    let error = place.refuse(&ask("a.png", &long));
    assert!(error.contains("the question: the prompt has") && error.contains("context is 512"), "{error}");
    assert!(place.refuse(&ask("a.png", "<image> or <image>?")).contains("2 image placeholder(s) in the text, but 1"));
    assert!(place.refuse(&ask("a.png", " ")).contains("the question is empty"));
    let mut hot = ask("a.png", "Which?").to_vec();
    hot.extend(["--temperature=-1"]);
    assert!(place.refuse(&hot).contains("`temperature` must be 0 (greedy) or a positive number"));
    let mut pixels = ask("a.png", "Which?").to_vec();
    pixels.extend(["--min-pixels", "9000", "--max-pixels", "5000"]);
    assert!(place.refuse(&pixels).contains("min_pixels is 9000, more than max_pixels 5000"));
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
    for (args, says) in [
        (&["-c", "unknown.toml"][..], "unknown.toml: unknown key `sft.learning_rat`; "),
        (&["-c", "typed.toml"], "typed.toml: `sft.epochs`: invalid type: string \"three\""),
        (&["-c", "broken.toml"], "broken.toml:1: not TOML"),
        (&["-c", "absent.toml"], "absent.toml: No such file"),
        (&["-c", "recipe.toml", "--set", "sft.epoch=1"], "unknown key `sft.epoch`; did you mean `sft.epochs`?"),
        (&["-c", "recipe.toml", "--set", "sft.epochs=0"], "`sft.epochs` = 0: must be at least 1"),
        (&["-c", "recipe.toml", "--set", "sft.schedule.lr=nan"], "`sft.schedule.lr` = NaN: must be"),
        (&["-c", "recipe.toml", "--set", "sft.adamw.beta1=2"], "`sft.adamw.beta1` = 2: must be"),
        (&["-c", "recipe.toml", "--set", "data.sft.sizes.max_pixels=0"], "data.sft.sizes: max_pixels is 0"),
        (
            &["-c", "recipe.toml", "--set", "data.sft.validation_rows=2"],
            "`data.sft.validation_rows` = 2: must be less than the file's 2 rows",
        ),
        (
            &["-c", "recipe.toml", "--set", "data.sft.validation_rows=1", "--set", "data.sft.validation=sft.json"],
            "`data.sft.validation_rows` = 1: must be 0 beside `data.sft.validation`",
        ),
        (&["-c", "recipe.toml", "--set", "data.sft.validation=absent.json"], "absent.json: cannot be read"),
        (&["-c", "recipe.toml", "--set", "data.sft.validation=broken.json"], "broken.json:1: "),
        (&["-c", "recipe.toml", "--set", "data.sft.validation=damaged.json"], "damaged.json:1"),
        (&["-c", "recipe.toml", "--set", "model.path="], "no model; name a checkpoint folder"),
        (&["-c", "recipe.toml", "--set", "output="], "no output folder"),
        (&["-c", "recipe.toml", "--set", "output=model"], "model: is not empty"),
        (&["-c", "recipe.toml", "--device", "flax"], "device `flax` is unknown: did you mean `flex`?"),
        (&["-c", "recipe.toml", "--device", "flex:1"], "takes no number"),
    ] {
        let args: Vec<&str> = std::iter::once("sft").chain(args.iter().copied()).collect();
        let error = place.refuse(&args);
        assert!(error.contains(says), "{error}");
        assert_eq!(place.listing(), before, "{args:?}");
    }
}

#[test]
fn training_refuses_settings_before_it_looks_at_data() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let before = place.listing();
    for (command, set, says) in [
        ("sft", "model.dtype=f16", "`model.dtype` = f16: small gradients vanish in f16"),
        ("tapo", "model.parts.vision=f16", "`model.parts.vision` = f16: small gradients vanish in f16"),
        ("sft", "sft.batch=0", "`sft.batch` = 0: must be at least 1"),
        ("tapo", "tapo.batch=0", "`tapo.batch` = 0: must be at least 1"),
        ("tapo", "tapo.rewards.exakt=1", "`tapo.rewards.exakt`: no such reward; there are accuracy, exact, format"),
        ("tapo", "tapo.rewards.format=-1", "`tapo.rewards.format` = -1: must be a number of at least 0"),
        ("tapo", "tapo.filter.key=exact", "`tapo.filter.key` = exact: not among the rewards (accuracy, format)"),
        ("tapo", "tapo.rewards.semantic=0.5", "`tapo.rewards.semantic` needs a text encoder: set `model.text_encoder`"),
        ("tapo", "tapo.rewards.semantic=-1", "`tapo.rewards.semantic` = -1: must be a number of at least 0"),
        ("tapo", "tapo.patches.probability=2", "`tapo.patches.probability` = 2: must be"),
        ("tapo", "tapo.estimator=gae", "`tapo.estimator`: unknown variant `gae`"),
        ("tapo", "tapo.loss.clip_dual=1", "`tapo.loss.clip_dual` = 1: must be above 1"),
        ("tapo", "tapo.loss.sampler_cap=0.5", "`tapo.loss.sampler_cap` = 0.5: must be at least 1"),
        ("tapo", "tapo.loss.importance=word", "`tapo.loss.importance`: unknown variant `word`"),
        ("tapo", "tapo.schedule.lr=nan", "`tapo.schedule.lr` = NaN: must be"),
    ] {
        // Neither conversations nor triplets are there: the setting comes first.
        let error = place.refuse(&[command, "-c", "recipe.toml", "--set", set]);
        assert!(error.contains(says), "{error}");
        assert_eq!(place.listing(), before, "{set}");
    }
    let two = ["tapo", "-c", "recipe.toml", "--set", "model.dtype=bf16", "--set", "tapo.adamw.half=none"];
    let error = place.refuse(&two);
    assert!(error.contains("`model.dtype` = bf16 and `tapo.adamw.half` = none"), "{error}");
    // An encoder that is not there comes before the data and the model, whose weights are damaged.
    fs::write(place.path("model/model.safetensors"), "damaged").unwrap();
    let semantic = ["tapo", "-c", "recipe.toml", "--set", "tapo.rewards.semantic=0.5"];
    let error = place.refuse(&[&semantic[..], &["--set", "model.text_encoder=absent"]].concat());
    assert!(error.contains("`model.text_encoder`") && error.contains("absent/config.json"), "{error}");
    let error = place.refuse(&[&semantic[..], &["--set", "model.text_encoder=model"]].concat());
    assert!(error.contains("`model_type` is qwen2_5_vl"), "{error}");
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
    let error = place.refuse(&["data", "check", "rows.json"]);
    assert!(error.contains("rows.json: 1 problem"), "{error}");
    place.conversations("rows.json", 3, |_, _| ());
    assert!(place.succeed(&["data", "check", "rows.json"]).contains("images    3 (3 found"));
    assert!(place.refuse(&["data", "check", "none.json"]).contains("none.json: cannot be read"));
    assert!(place.refuse(&["data", "check", "rows.json", "--images", "nowhere"]).contains("nowhere: no such folder"));
    assert!(place.refuse(&["parity", "nowhere"]).contains("nowhere: no such folder"));
    assert!(place.refuse(&["parity", "model"]).contains("model: not a reference folder"));
    fs::create_dir(place.path("chats")).unwrap();
    place.write("chats/cases.json", "{\"cases\": 7}");
    assert!(place.refuse(&["parity", "chats"]).contains("chats/cases.json: "));
}
