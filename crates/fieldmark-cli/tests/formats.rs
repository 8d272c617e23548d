//! The forms in which other programs write data: read alike where they are read, and refused by name where they are not.

mod support;

use std::{collections::BTreeSet, fs};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use support::{Place, lines, question, refusal::Refusal, triplet};

const QUESTION: &str = "<image>Which fruit?";
const ANSWER: &str = "<think>green</think> <answer>Lime</answer>";

fn stderr_of(place: &Place, args: &[&str]) -> String {
    let output = place.run(args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {text}");
    text
}

#[test]
fn one_conversation_in_every_form_has_one_loss() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe().replace("lr = 1e-3", "lr = 1e-12"));
    let png = fs::read(place.path("a.png")).unwrap();
    let (base64, url) = (STANDARD.encode(&png), format!("file://{}", place.path("a.png").display()));
    let data_url = format!("data:image/png;base64,{base64}");
    let user = |content: Value| json!({"role": "user", "content": content});
    let assistant = json!({"role": "assistant", "content": ANSWER});
    let with = |image: Value| user(json!([image, {"type": "text", "text": "Which fruit?"}]));
    let messages = |user: Value, images: Value| json!({"messages": [user, assistant], "images": images});
    let rows = vec![
        messages(user(json!(QUESTION)), json!(["a.png"])),
        messages(user(json!("Which fruit?")), json!(["a.png"])),
        messages(user(json!(QUESTION)), json!([{"bytes": png, "path": null}])),
        messages(user(json!(QUESTION)), json!([{"bytes": base64, "path": "a.png"}])),
        messages(with(json!({"type": "image"})), json!(["a.png"])),
        messages(with(json!({"type": "image", "image": url})), Value::Null),
        messages(with(json!({"type": "image_url", "image_url": {"url": data_url}})), json!([])),
        json!({"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": ANSWER}], "image": "a.png"}),
        json!({"prompt": [with(json!({"type": "image"}))], "completion": [assistant], "images": ["a.png"]}),
        json!({"instruction": QUESTION, "input": "", "output": ANSWER, "image": "a.png"}),
    ];
    let count = rows.len();
    place.write("sft.json", Value::from(rows).to_string());
    let said = stderr_of(&place, &["sft", "-c", "recipe.toml", "--set", "sft.epochs=1", "--set", "sft.batch=1"]);
    let metrics = lines(&place, "out/metrics.jsonl");
    assert_eq!(metrics.len(), count);
    let loss = |row: &Value| row["loss"].as_f64().unwrap();
    for row in &metrics {
        assert_eq!(row["tokens"], metrics[0]["tokens"]);
        assert!((loss(row) - loss(&metrics[0])).abs() < 1e-5, "{row} {}", metrics[0]);
    }
    let put_first = said.lines().filter(|line| line.starts_with("note: ") && line.contains("1 of 10"));
    assert_eq!(put_first.count(), 1, "{said}");
    assert!(place.succeed(&["data", "check", "sft.json", "--images", "."]).contains("1 row has one image"));
}

#[test]
fn text_is_learned_beside_photographs_and_alone_packed_or_not() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    for (file, rows) in [("mixed.json", 3), ("text.json", 2)] {
        place.conversations(file, rows, |row, value| {
            if row > 0 || file == "text.json" {
                value["messages"][0]["content"] = json!("Name a fruit.");
                value["images"] = json!([]);
            }
        });
        let mut losses = Vec::new();
        for packing in ["true", "false"] {
            let sets = [
                format!("data.sft.file={file}"),
                format!("output={packing}-{file}"),
                format!("sft.packing={packing}"),
                "sft.micro_batch=3".into(),
                "sft.batch=3".into(),
            ];
            let mut args = vec!["sft", "-c", "recipe.toml"];
            sets.iter().for_each(|set| args.extend(["--set", set]));
            let said = stderr_of(&place, &args);
            assert!(said.contains(&format!("2 of {rows} rows have no image")), "{said}");
            let metrics = lines(&place, &format!("{packing}-{file}/metrics.jsonl"));
            losses.push(metrics.iter().map(|row| row["loss"].as_f64().unwrap()).collect::<Vec<_>>());
        }
        let [packed, padded] = &losses[..] else { panic!() };
        assert!(packed.len() == 2 && packed[1] < packed[0], "{losses:?}");
        assert!(packed.iter().zip(padded).all(|(a, b)| (a - b).abs() < 1e-4), "{losses:?}");
    }
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let refuse = |change: &dyn Fn(&mut Value)| -> [Refusal; 2] {
        place.conversations("sft.json", 2, |row, value| {
            if row == 1 {
                change(value);
            }
        });
        let check = place.run(&["data", "check", "sft.json"]);
        let text = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(check.status.code() == Some(2) && text.contains("sft.json:2: "), "{text}");
        [place.refuse(&["sft", "-c", "recipe.toml"]), Refusal::of("data check", &check)]
    };
    for column in ["videos", "audios", "tools", "video", "audio", "tool_calls"] {
        refuse(&|row| row[column] = json!([{"name": "x"}]))[0].names("sft.json:2").names(column);
    }
    refuse(&|row| row["messages"][1]["tool_calls"] = json!([{"id": 1}]))[0].names("sft.json:2").names("tool_calls");
    refuse(&|row| row["messages"][0]["content"] = json!("<image><video>?"))[0].names("sft.json:2").names("<video>");
    refuse(&|row| row["images"] = json!(["https://x.org/a.png"]))[0].names("sft.json:2").names("https://x.org/a.png");
    refuse(&|row| row["images"] = json!([{"bytes": "****"}]))[0].names("sft.json:2").suggests("base64");
    refuse(&|row| *row = json!({"query": "a", "response": "b"}))[0]
        .names("sft.json:2")
        .names("query, response")
        .suggests("messages")
        .suggests("completion")
        .suggests("instruction");
    // Empty columns are what a table of many kinds of rows has.
    place.conversations("sft.json", 2, |_, row| {
        row["videos"] = json!([]);
        row["tools"] = json!("[]");
        row["audio"] = Value::Null;
    });
    place.succeed(&["data", "check", "sft.json"]);
}

#[test]
fn a_check_that_was_told_where_to_look_fails_if_nothing_is_there() {
    let place = Place::new();
    for folder in ["photos", "rows"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    fs::copy(place.path("a.png"), place.path("rows/x.png")).unwrap();
    let check = |image: &str, images: &[&str]| {
        place.conversations("rows/sft.json", 2, |_, row| row["images"] = json!([image]));
        let output = place.run(&[&["data", "check", "rows/sft.json"][..], images].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for found in ["x.png", ".\\x.png"] {
        assert_eq!(check(found, &["--images", "rows"]).0, Some(0), "{found}");
    }
    let (code, text) = check("x.png", &["--images", "photos"]);
    assert!(code == Some(2) && text.contains("rows/sft.json:1: ") && text.contains("image x.png"), "{text}");
    // Without a folder the photographs may be elsewhere; with one, the line says what is there instead.
    assert_eq!(check("X.PNG", &[]).0, Some(0));
    let (code, text) = check("X.PNG", &["--images", "rows"]);
    assert!(code == Some(2) && text.contains("rows/sft.json:1: ") && text.contains("rows/x.png"), "{text}");
}

#[test]
fn options_that_scoring_cannot_tell_apart_are_refused() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let mut row = question("a.png", "Lime");
    row["options"] = json!(["Lime", "Granny_Smith", "granny smith"]);
    place.write("fruit_seen.jsonl", format!("{}\n{row}\n", question("a.png", "Lime")));
    place
        .refuse(&["eval", "-c", "recipe.toml"])
        .names("fruit_seen.jsonl:2")
        .names("Granny_Smith")
        .names("granny smith");
    assert_eq!(place.run(&["data", "check", "fruit_seen.jsonl"]).status.code(), Some(2));
}

#[test]
fn a_triplet_needs_a_negative_of_its_own_and_a_truth() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    fs::copy(place.path("a.png"), place.path("copy.png")).unwrap();
    let refuse = |row: Value| {
        place.write("tapo.jsonl", format!("{}\n{row}\n", triplet(["a.png", "b.png", "c.png"])));
        assert_eq!(place.run(&["data", "check", "tapo.jsonl"]).status.code(), Some(2));
        let refusal = place.refuse(&["tapo", "-c", "recipe.toml"]);
        refusal.names("tapo.jsonl:2");
        refusal
    };
    refuse(triplet(["a.png", "b.png", "a.png"])).names("negative").names("anchor");
    refuse(triplet(["a.png", "b.png", "copy.png"])).names("negative").names("anchor");
    refuse(triplet(["b.png", "a.png", "copy.png"])).names("negative").names("positive");
    let mut blank = triplet(["a.png", "b.png", "c.png"]);
    blank["answer"] = json!("<answer> </answer>");
    refuse(blank).names("answer");
}

/// Photographs of three classes in a table, with a class of one.
fn labelled(place: &Place) {
    let mut table = "path,class,super_category,split\n".to_owned();
    for (name, class) in [("a", "Lime"), ("b", "Plum"), ("c", "Border Collie")] {
        table.push_str(&format!("{name}.png,{class},x,train\n"));
        fs::copy(place.path(&format!("{name}.png")), place.path(&format!("{name}-test.png"))).unwrap();
        table.push_str(&format!("{name}-test.png,{class},x,test\n"));
    }
    place.write("labels.csv", table);
}

#[test]
fn held_out_classes_are_neither_shown_nor_named() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    labelled(&place);
    let command = |stage: &str, sets: &[&str]| -> Vec<String> {
        let sets = [&["data.labels=."][..], sets].concat();
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        [stage, "-c", "recipe.toml"].into_iter().chain(sets).map(str::to_owned).collect()
    };
    let lime = "data.unseen_classes=[\"Lime\"]";
    let row = |file: &str, image: &str, answer: &str| {
        place.conversations(file, 2, |row, value| {
            value["images"] = json!([if row == 1 { image } else { "b.png" }]);
            let answer = if row == 1 { answer } else { "Plum" };
            value["messages"][1]["content"] = json!(format!("<think>x</think><answer>{answer}</answer>"));
        });
    };
    row("sft.json", "c.png", "A Lime.");
    place.refuse(&command("sft", &[lime])).names("sft.json:2").names("Lime").names_key("data.unseen");
    row("sft.json", "a-test.png", "Plum");
    place.refuse(&command("sft", &[lime])).names("sft.json:2").names("Lime").names_key("data.unseen");
    for (answer, negative) in [("lime", "c.png"), ("Plum", "a.png")] {
        let mut value = triplet(["b.png", "b.png", negative]);
        value["answer"] = json!(answer);
        place.write("tapo.jsonl", format!("{value}\n"));
        place.refuse(&command("tapo", &[lime])).names("tapo.jsonl:1").names("Lime").names_key("data.unseen");
    }

    // Without such rows it trains and says what is held out; the validation file may show the class.
    row("held.json", "a.png", "Lime");
    row("sft.json", "c.png", "Border Collie");
    let args = command("sft", &[lime, "data.sft.validation=held.json", "sft.epochs=1"]);
    let said = stderr_of(&place, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.lines().any(|line| line.starts_with("note: ") && line.ends_with(": Lime")), "{said}");
    place.write("fruit_seen.jsonl", format!("{}\n", question("a.png", "Lime")));
    let args = command("eval", &[lime, "output=eval"]);
    let said = stderr_of(&place, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(said.lines().any(|line| line.starts_with("note: ") && line.ends_with(": Lime")), "{said}");

    let pear = "data.unseen_classes=[\"Pear\"]";
    place.refuse(&command("sft", &[pear, "output=new"])).names("Pear").names("Plum");
    place
        .refuse(&command("sft", &[lime, "data.unseen=1", "output=new"]))
        .names_key("data.unseen")
        .names_key("data.unseen_classes");
    let alone = ["sft", "-c", "recipe.toml", "--set", "data.unseen=1", "--set", "output=new"];
    place.refuse(&alone).names_key("data.unseen").names_key("data.labels");
}

#[test]
fn the_seed_of_a_run_does_not_draw_the_held_out_classes() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    labelled(&place);
    place.conversations("sft.json", 3, |row, value| {
        value["messages"][1]["content"] = json!(["Lime", "Plum", "Border Collie"][row]);
    });
    let held_out = |sets: [&str; 2]| {
        let args = ["sft", "-c", "recipe.toml", "--set", "data.labels=.", "--set", "data.unseen=1"];
        let refusal = format!("{:?}", place.refuse(&[&args[..], &["--set", sets[0], "--set", sets[1]]].concat()));
        (1..4).find(|row| refusal.contains(&format!("sft.json:{row}:"))).unwrap()
    };
    let runs: BTreeSet<usize> = (0..6).map(|seed| held_out([&format!("seed={seed}"), "data.unseen_seed=1"])).collect();
    assert_eq!(runs.len(), 1);
    let draws: BTreeSet<usize> = (0..8).map(|seed| held_out(["seed=1", &format!("data.unseen_seed={seed}")])).collect();
    assert!(draws.len() > 1, "{draws:?}");
}
