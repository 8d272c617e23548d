//! The output folder: what a run may replace in it, what does not count as being in it, whether it can be written to, and
//! whether the run in it is whole.
#![cfg(unix)]

mod support;

use std::{fs, process::Command};

use support::{
    names,
    runs::{args, place, resume, stderr, succeed},
};

fn over(mut args: Vec<String>) -> Vec<String> {
    args.push("--overwrite".into());
    args
}

#[test]
fn a_recipe_written_by_hand_is_not_replaced() {
    let place = place();
    fs::create_dir(place.path("out")).unwrap();
    let text = format!("# mine\n{}", fs::read_to_string(place.path("recipe.toml")).unwrap());
    place.write("out/recipe.toml", &text);
    let own = ["sft", "-c", "out/recipe.toml"].map(str::to_owned).to_vec();
    place.refuse(&own).at_once().names("out").names("recipe.toml").suggests("--overwrite");
    for command in [[own.clone(), vec!["--resume".into()]].concat(), resume("sft", "out")] {
        let refusal = place.refuse(&command);
        refusal.at_once().names("out/recipe.toml").suggests("--set output=DIR").suggests("--overwrite");
    }
    // A run that was killed before it saved anything has its own recipe there, and starts again.
    succeed(&place, &args("sft", "other"));
    for name in ["checkpoint", "checkpoints", "inputs.json", "metrics.jsonl"] {
        let path = place.path("other").join(name);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    succeed(&place, &resume("sft", "other"));
    succeed(&place, &over(own));
    assert!(!fs::read_to_string(place.path("out/recipe.toml")).unwrap().starts_with("# mine"));
}

#[test]
fn what_systems_put_into_a_folder_does_not_count() {
    let place = place();
    place.write("words.txt", "a lime\n");
    let incidental = [".DS_Store", ".gitignore", ".gitkeep", "Thumbs.db", "desktop.ini"];
    for folder in ["out", "resumed", "made"] {
        fs::create_dir(place.path(folder)).unwrap();
        incidental.iter().for_each(|name| place.write(&format!("{folder}/{name}"), name));
    }
    succeed(&place, &args("sft", "out"));
    succeed(&place, &resume("sft", "resumed"));
    succeed(&place, &["init", "--corpus", "words.txt", "--out", "made"].map(str::to_owned));
    for folder in ["out", "resumed", "made"] {
        for name in incidental {
            assert_eq!(fs::read_to_string(place.path(folder).join(name)).unwrap(), name, "{folder}");
        }
    }
    assert!(names(&place, "made").contains("model.safetensors"));
    // Anything else does.
    fs::create_dir(place.path("mine")).unwrap();
    place.write("mine/.notes", "");
    place.refuse(&args("sft", "mine")).at_once().names("mine");
}

#[test]
fn what_cannot_be_written_to_is_found_before_the_data_is_read() {
    let place = place();
    place.write("taken", "");
    place.refuse(&args("sft", "taken/run")).at_once().names("taken").suggests("--set output=DIR");
    place.refuse(&args("eval", "taken/run")).at_once().names("taken").suggests("--set output=DIR");
    fs::create_dir(place.path("out")).unwrap();
    place.write("out/checkpoint", "mine");
    place.refuse(&over(args("sft", "out"))).at_once().names("out/checkpoint").suggests("--set output=DIR");
    fs::remove_file(place.path("out/checkpoint")).unwrap();
    let lock = |folder: &str, mode: &str| {
        assert!(Command::new("chmod").args([mode, folder]).current_dir(place.path("")).status().unwrap().success());
    };
    fs::create_dir(place.path("out/checkpoint")).unwrap();
    for locked in ["out", "out/checkpoint"] {
        lock(locked, "a-w");
        // For root everything can be written to.
        if fs::write(place.path(locked).join("probe"), "").is_err() {
            place.refuse(&over(args("sft", "out"))).at_once().names(locked).suggests("--set output=DIR");
        }
        lock(locked, "u+w");
    }
}

#[test]
fn a_finished_run_is_one_whose_model_is_whole() {
    let place = place();
    succeed(&place, &args("sft", "out"));
    let model = "out/checkpoint/model.safetensors";
    let whole = fs::read(place.path(model)).unwrap();
    let finished = |said: &str| said.lines().count() == 1 && said.ends_with(" out/checkpoint\n");
    for damage in [&b""[..], &whole[..whole.len() - 4], b"no header at all"] {
        place.write(model, damage);
        let refusal = place.refuse(&resume("sft", "out"));
        refusal.at_once().names(model).suggests("out/checkpoints/step-000008");
    }
    fs::remove_file(place.path(model)).unwrap();
    place.refuse(&resume("sft", "out")).at_once().names("out/checkpoint").suggests("out/checkpoints/step-000008");
    // As it says: from the newest checkpoint to the same model.
    fs::remove_dir_all(place.path("out/checkpoint")).unwrap();
    succeed(&place, &resume("sft", "out"));
    assert!(fs::read(place.path(model)).unwrap() == whole);
    assert!(finished(&place.succeed(&resume("sft", "out"))));
    // Shards count as a whole.
    let shard = "model-00001-of-00001.safetensors";
    fs::rename(place.path(model), place.path("out/checkpoint").join(shard)).unwrap();
    let index = serde_json::json!({ "weight_map": { "model.norm.weight": shard } }).to_string();
    place.write("out/checkpoint/model.safetensors.index.json", index);
    assert!(finished(&place.succeed(&resume("sft", "out"))));
    fs::remove_file(place.path("out/checkpoint").join(shard)).unwrap();
    place.refuse(&resume("sft", "out")).at_once().names(shard);
    // Without a checkpoint to go on from, the run can only be replaced.
    fs::remove_dir_all(place.path("out/checkpoints")).unwrap();
    place.refuse(&resume("sft", "out")).at_once().names(shard).suggests("--overwrite");
}

#[test]
fn the_home_folder_is_known_in_every_path() {
    let place = place();
    let run = |sets: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fieldmark"));
        command.args(["sft", "-c", "home.toml"]).current_dir(place.path("")).env_remove("RUST_BACKTRACE");
        command.args(sets.iter().flat_map(|set| ["--set", set]));
        command.env("HOME", place.path("")).output().unwrap()
    };
    let text = fs::read_to_string(place.path("recipe.toml")).unwrap();
    let here = place.path("").display().to_string();
    place.write("home.toml", text.replace(here.trim_end_matches('/'), "~"));
    let done = run(&["output=~/runs/x", "sft.epochs=1"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(place.path("runs/x/checkpoint/model.safetensors").is_file() && !place.path("~").exists());
    let other = run(&["data.images=~nobody/photos"]);
    assert!(other.status.code() == Some(2) && stderr(&other).contains("`data.images`"), "{}", stderr(&other));
    place.write("home.toml", "seed = 1\n[eval]\nfiles = [\"a\", \"~nobody/b\"]\n");
    let other = run(&[]);
    assert!(
        other.status.code() == Some(2) && stderr(&other).contains("home.toml:3: `eval.files`"),
        "{}",
        stderr(&other)
    );
}
