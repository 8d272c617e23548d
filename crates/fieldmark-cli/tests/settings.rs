//! Values of recipe keys: how they are written, and those with which nothing is learned.

mod support;

use std::fs;

use serde_json::json;
use support::{Place, question, runs::stderr};

fn with<'a>(stage: &'a str, sets: &[&'a str]) -> Vec<&'a str> {
    [stage, "-c", "recipe.toml"].into_iter().chain(sets.iter().flat_map(|set| ["--set", *set])).collect()
}

/// Runs a command and returns its notes.
#[track_caller]
fn notes(place: &Place, args: &[&str], code: i32) -> Vec<String> {
    let output = place.run(args);
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    stderr(&output).lines().filter(|line| line.starts_with("note: ")).map(str::to_owned).collect()
}

#[test]
fn a_value_of_another_type_is_answered_with_its_form_and_its_line() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    for (text, key, form) in [
        ("[eval]\n\nfiles = \"a.jsonl\"", "eval.files", "files = [\"a.jsonl\"]"),
        ("[data]\n\ncheck = \"no\"", "data.check", "true or false"),
        ("[sft]\n\nepochs = -1", "sft.epochs", "a whole number, 0 or more"),
        ("[sft]\n\nepochs = \"three\"", "sft.epochs", "a whole number, 0 or more"),
        ("[sft.schedule]\n\nlr = \"1e-4\"", "sft.schedule.lr", "a number"),
        ("[data]\n\nimages = 7", "data.images", "images = \"7\""),
        ("[model]\n\ndtype = 32", "model.dtype", "\"bf16\""),
    ] {
        place.write("wrong.toml", text);
        let refusal = place.refuse(&["sft", "-c", "recipe.toml", "-c", "wrong.toml"]);
        refusal.at_once().names("wrong.toml:3").names_key(key).suggests(form).leaves_out("expected");
    }
    for (set, key, form) in [
        ("eval.files=a.jsonl", "eval.files", "--set 'eval.files=[\"a.jsonl\"]'"),
        ("data.check=maybe", "data.check", "true or false"),
        ("sft.epochs=2.5", "sft.epochs", "a whole number, 0 or more"),
        ("sft.train=true", "sft.train", "vision, projector, decoder"),
    ] {
        let refusal = place.refuse(&with("sft", &[set]));
        refusal.at_once().names_key(key).suggests(form).leaves_out("expected");
    }
    place.write("wrong.toml", "[sft]\n\nepoch = 3");
    place.refuse(&["sft", "-c", "wrong.toml"]).names("wrong.toml:3").names_key("sft.epoch").suggests("sft.epochs");
}

#[test]
fn a_run_that_changes_nothing_says_so() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    place.conversations("sft.json", 3, |_, _| ());
    let said = notes(&place, &with("sft", &["sft.schedule.lr=0"]), 0);
    assert!(matches!(&said[..], [one] if one.contains("`sft.schedule.lr` = 0")), "{said:?}");
    assert_eq!(notes(&place, &with("sft", &["output=other"]), 0), Vec::<String>::new());
    // A norm of 0 would make every gradient 0. It is refused before the data is read.
    for stage in ["sft", "tapo"] {
        let set = format!("{stage}.max_grad_norm=0");
        let refusal =
            place.refuse(&with(stage, &[&set, "output=new", "data.sft.file=absent", "data.tapo.file=absent"]));
        refusal.at_once().names_key(&format!("{stage}.max_grad_norm")).names("0").suggests("inf");
    }
}

#[test]
fn text_teaches_the_decoder_alone() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let text = |row: &mut serde_json::Value| {
        row["messages"][0]["content"] = "Which fruit?".into();
        row["images"] = json!([]);
    };
    place.conversations("text.json", 3, |_, row| text(row));
    place.conversations("mixed.json", 3, |number, row| {
        if number > 0 {
            text(row)
        }
    });
    for part in ["vision", "projector"] {
        let train = format!("sft.train={{vision=false,projector=false,decoder=false,{part}=true}}")
            .replace(&format!("{part}=false,"), "");
        let refusal = place.refuse(&with("sft", &[&train, "data.sft.file=text.json"]));
        refusal.names("text.json").names_key("sft.train.decoder");
        let output = format!("output={part}");
        let said = notes(&place, &with("sft", &[&train, "data.sft.file=mixed.json", &output]), 0);
        let is_told = |note: &str| note.contains("mixed.json: 2 of 3 rows") && note.contains("teach nothing");
        assert!(matches!(&said[..], [one] if is_told(one)), "{said:?}");
    }
    let said = notes(&place, &with("sft", &["data.sft.file=text.json", "output=decoder"]), 0);
    assert!(matches!(&said[..], [one] if one.contains("text.json: 3 of 3 rows") && one.contains("learns")), "{said:?}");
}

#[test]
fn very_large_photographs_are_told_once() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    // Headers alone: what follows them is cut short, which is found when they are decoded.
    let small = fs::read(place.path("a.png")).unwrap();
    for (name, width, height) in [("large.png", 10_000u32, 9_000u32), ("larger.png", 9_500, 10_000)] {
        let mut header = small.clone();
        header[16..20].copy_from_slice(&width.to_be_bytes());
        header[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = support::crc32(&header[12..29]);
        header[29..33].copy_from_slice(&crc.to_be_bytes());
        place.write(name, header);
    }
    let images = ["large.png", "a.png", "larger.png", "larger.png"];
    place.conversations("sft.json", 4, |row, value| value["images"][0] = images[row].into());
    let rows: Vec<String> = images.iter().map(|image| format!("{}\n", question(image, "Lime"))).collect();
    place.write("fruit_seen.jsonl", rows.concat());
    let triplets = ["a.png", "larger.png"].map(|image| support::triplet([image, "b.png", "large.png"]).to_string());
    place.write("tapo.jsonl", triplets.join("\n"));
    for (stage, code) in [("sft", 2), ("tapo", 2), ("eval", 1)] {
        let said = notes(&place, &with(stage, &[&format!("output={stage}")]), code);
        let [one] = &said[..] else { panic!("{stage}: {said:?}") };
        assert!(one.contains("2 photographs") && one.contains("larger.png") && one.contains("9500×10000"), "{one}");
    }
}
