//! What is right: truths and answers as files and models write them, names with aliases, and the two accuracies of a
//! run. Texts are compared in one form in rewards and evaluation.

mod support;

use std::{fs, path::Path};

use serde_json::{Value, json};
use support::{Place, lines, refusal::mentions, triplet};

/// A predictions file: a line for each data set, which answers one open-world or closed-world question.
fn predictions(place: &Place, rows: &[(&str, Value)]) {
    let text: String = rows
        .iter()
        .map(|(dataset, change)| {
            let mut row = json!({
                "dataset": dataset, "split": "seen", "world": "open", "row": 1, "image_path": "a.png", "question": "?",
                "options": [], "option_order": null, "ground_truth": "Lime", "super_category": "fruit",
                "prompt_template": "eval_open", "system": null, "prompt": "p", "model": "m", "min_pixels": 3136,
                "max_pixels": 3136, "dtype": "f32", "device": "flex", "exif_honoured": true, "alpha": "drop",
                "temperature": 0.0, "top_k": 0, "top_p": 1.0, "repetition_penalty": 1.0, "seed": 1,
                "max_new_tokens": 9, "output": "", "output_tokens": 3, "finished": true,
            });
            change.as_object().unwrap().iter().for_each(|(key, value)| row[key] = value.clone());
            if row["options"] != json!([]) {
                (row["world"], row["option_order"]) = (json!("closed"), json!("released"));
            }
            format!("{row}\n")
        })
        .collect();
    place.write("predictions.jsonl", text);
}

/// The score of a data set, in percent, in the first table that has it and in the second: strict and official.
fn scores(report: &str, dataset: &str) -> [f64; 2] {
    let name = |line: &str| line.split('┆').next().map(|name| name.trim_matches(['│', ' ']).to_owned());
    let rows = report.lines().filter(|line| name(line).as_deref() == Some(dataset));
    let values = rows.map(|row| {
        let cell = row.split('┆').nth(1).unwrap();
        cell.split_whitespace().next().unwrap().parse().unwrap()
    });
    values.collect::<Vec<f64>>().try_into().unwrap_or_else(|_| panic!("{dataset}: {report}"))
}

#[test]
fn an_evaluation_takes_a_name_for_what_a_reader_takes_it_for() {
    let place = Place::new();
    let said = |answer: &str| json!(format!("<think>x</think><answer>{answer}</answer>"));
    predictions(
        &place,
        &[
            ("decomposed", json!({ "ground_truth": "Jalapen\u{303}o", "output": said("Jalape\u{f1}o") })),
            (
                "choice",
                json!({ "ground_truth": "Jalapen\u{303}o", "options": ["Jalapen\u{303}o", "Lime"],
                        "output": said("Jalape\u{f1}o") }),
            ),
            ("dashes", json!({ "ground_truth": "F-16 A", "output": said("F\u{2011}16 A") })),
            ("apostrophe", json!({ "ground_truth": "Cook's Petrel", "output": said("Cook\u{2019}s Petrel") })),
            ("denied", json!({ "output": said("It isn\u{2019}t a Lime") })),
            ("instead", json!({ "output": said("a Lemon rather than a Lime") })),
            ("one_denied", json!({ "options": ["Lime", "Lemon"], "output": said("a Lime, not a Lemon") })),
            ("chinese", json!({ "ground_truth": "青柠", "output": said("这是青柠。") })),
            ("plural", json!({ "output": said("Limestone") })),
            ("blocks", json!({ "output": "<think>x</think><answer>Lime</answer><answer>Lemon</answer>" })),
            ("alias", json!({ "aliases": { "Lime": ["Limette"] }, "output": said("eine Limette") })),
            ("other_alias", json!({ "options": ["Lime", "Lemon"], "output": said("eine Zitrone") })),
        ],
    );
    let report = place.succeed(&["eval", "--score-only", "predictions.jsonl"]);
    for (dataset, strict, official) in [
        ("decomposed", 100.0, 100.0),
        ("choice", 100.0, 100.0),
        ("dashes", 100.0, 100.0),
        ("apostrophe", 100.0, 100.0),
        ("denied", 0.0, 100.0),
        ("instead", 0.0, 100.0),
        ("one_denied", 100.0, 100.0),
        ("chinese", 100.0, 100.0),
        ("plural", 0.0, 100.0),
        ("blocks", 0.0, 100.0),
        ("alias", 100.0, 100.0),
        ("other_alias", 0.0, 0.0),
    ] {
        assert_eq!(scores(&report, dataset), [strict, official], "{dataset}: {report}");
    }
    // Aliases from a file, in both worlds.
    place.write("aliases.toml", "Lemon = \"Zitrone\"\nLime = [\"Limestone\"]\n");
    let set = ["--set", "data.aliases=aliases.toml"];
    let report = place.succeed(&[&["eval", "--score-only", "predictions.jsonl"][..], &set].concat());
    assert_eq!([scores(&report, "plural"), scores(&report, "other_alias")], [[100.0; 2], [0.0; 2]]);
    place.write("aliases.toml", "Lime = [\"Zitrone\"]\n");
    let report = place.succeed(&[&["eval", "--score-only", "predictions.jsonl"][..], &set].concat());
    assert_eq!(scores(&report, "other_alias"), [100.0; 2]);
    // An alias that is another class is refused by name.
    place.write("aliases.toml", "Lime = [\"lemon\"]\n");
    let refused = place.refuse(&[&["eval", "--score-only", "predictions.jsonl"][..], &set].concat());
    refused.names("aliases.toml").names("lemon").names("Lime");
}

#[test]
fn scores_are_of_one_evaluation_and_say_what_is_missing() {
    let place = Place::new();
    let score = ["eval", "--score-only", "predictions.jsonl"];
    predictions(&place, &[("fruit", json!({})), ("bird", json!({})), ("fruit", json!({}))]);
    place.refuse(&score).names("predictions.jsonl:3").names("row 1");
    predictions(&place, &[("fruit", json!({})), ("bird", json!({ "model": "another" }))]);
    place.refuse(&score).names("predictions.jsonl:2").names_key("model").names("another").names("row 1");

    predictions(&place, &[("fruit", json!({})), ("bird", json!({}))]);
    let whole = fs::read_to_string(place.path("predictions.jsonl")).unwrap();
    place.write("predictions.jsonl", &whole[..whole.len() - 9]);
    let report = place.succeed(&score);
    assert!(mentions(&report, "predictions.jsonl:2") && report.contains("--resume"), "{report}");
    assert!(report.contains("fruit") && !report.contains("bird"), "{report}");
    place.write("predictions.jsonl", &whole[..9]);
    place.refuse(&score).names("predictions.jsonl:1").names("--resume");

    // A list about other classes changes nothing, and the report says so.
    place.write("predictions.jsonl", whole);
    place.write("aliases.toml", "Plum = \"Zwetschge\"\n");
    let report = place.succeed(&[&score[..], &["--set", "data.aliases=aliases.toml"]].concat());
    assert!(mentions(&report, "aliases.toml") && mentions(&report, "Plum"), "{report}");
}

#[test]
fn a_truth_that_no_answer_can_match_is_refused_with_its_row() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let images = ["a.png", "b.png", "c.png"];
    for truth in ["?!", "<answer> </answer>", "\u{200b}", "a</answer> or <answer>b"] {
        let mut bad = triplet(images);
        bad["answer"] = json!(truth);
        place.write("tapo.jsonl", format!("{}\n{bad}\n", triplet(images)));
        place.refuse(&["tapo", "-c", "recipe.toml"]).names("tapo.jsonl:2");
        let check = place.run(&["data", "check", "tapo.jsonl"]);
        let told = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
        assert!(check.status.code() != Some(0) && told.contains("tapo.jsonl:2"), "{truth}: {told}");
    }
    // Two classes with one alias between them.
    let mut rows = [triplet(images), triplet(images)];
    (rows[0]["aliases"], rows[1]["answer"], rows[1]["alias"]) = (json!(["Citrus"]), json!("Lemon"), json!("citrus"));
    place.write("tapo.jsonl", format!("{}\n{}\n", rows[0], rows[1]));
    place.refuse(&["tapo", "-c", "recipe.toml"]).names("tapo.jsonl").names("Lime").names("Lemon");
}

/// Runs a stage with the recipe and these keys.
fn stage(place: &Place, stage: &str, set: &[&str]) {
    let sets = set.iter().chain(&["run.save_every=0", "run.tensorboard=false"]).flat_map(|set| ["--set", set]);
    place.succeed(&[stage, "-c", "recipe.toml"].into_iter().chain(sets).collect::<Vec<_>>());
}

/// Trains a model to write `response`.
fn taught(place: &Place, response: &str) {
    let prompt = "<image>Which?\n\nFirst think the question through and write your reasoning between <think> and </think>. \
                  Then write only the name between <answer> and </answer>.";
    place.write("recipe.toml", place.recipe());
    place.conversations("sft.json", 2, |_, value| {
        value["messages"][0]["content"] = json!(prompt);
        value["messages"][1]["content"] = json!(response);
    });
    stage(place, "sft", &["output=sft", "sft.epochs=50", "sft.schedule.lr=5e-3"]);
}

/// Samples from the taught model about rows with these truths. Returns the responses and the row of metrics.
fn sampled(place: &Place, output: &str, truths: &[&str], set: &[&str]) -> (Vec<Value>, Value) {
    let rows = truths.iter().map(|truth| {
        let mut row = triplet(["a.png", "b.png", "c.png"]);
        row["answer"] = json!(truth);
        format!("{row}\n")
    });
    place.write("tapo.jsonl", rows.collect::<String>());
    let (folder, count) = (format!("output={output}"), truths.len());
    let (prompts, chunk) = (format!("tapo.prompts_per_step={count}"), format!("tapo.chunk={count}"));
    let fixed = ["model.path=sft/checkpoint", &folder, "tapo.max_new_tokens=32", "tapo.temperature=0.05"];
    let sizes = [prompts.as_str(), &chunk, "tapo.anchor_rollouts=1", "tapo.positive_rollouts=1"];
    stage(place, "tapo", &[&fixed[..], &sizes, set].concat());
    let metrics = lines(place, &format!("{output}/metrics.jsonl"));
    let row = metrics.into_iter().find(|row| row.get("strict").is_some()).unwrap();
    (lines(place, &format!("{output}/rollouts.jsonl")), row)
}

fn shares(metrics: &Value) -> [f64; 3] {
    ["strict", "inclusion", "accuracy_anchor"].map(|key| metrics[key].as_f64().unwrap())
}

#[test]
fn rewards_take_a_truth_for_its_name() {
    let place = Place::new();
    taught(&place, "<think>x</think><answer>Lime</answer>");
    let truths = ["Lime\n", "<answer>lime</answer>", "Lim", "Fig"];
    let (rollouts, metrics) = sampled(&place, "plain", &truths, &["tapo.rewards.inclusion=0"]);
    assert_eq!(rollouts.len(), 2 * truths.len());
    for (truth, accuracy, inclusion) in [("Lime", 1.0, 1.0), ("lime", 1.0, 1.0), ("Lim", 0.0, 1.0), ("Fig", 0.0, 0.0)] {
        let mut found = rollouts.iter().filter(|rollout| rollout["truth"] == truth).peekable();
        assert!(found.peek().is_some(), "{truth}: {rollouts:?}");
        for rollout in found {
            let rewards = ["accuracy", "inclusion"].map(|name| rollout["rewards"][name].as_f64().unwrap());
            assert_eq!(rewards, [accuracy, inclusion], "{truth}: {rollout}");
            assert_eq!((&rollout["answer"], &rollout["answers"]), (&json!("Lime"), &json!(1)), "{rollout}");
        }
    }
    assert_eq!(shares(&metrics), [0.5, 0.75, 0.5]);
    // Another name from a file is as right.
    place.write("aliases.json", r#"{"Citrus": ["Lime"]}"#);
    let (_, metrics) = sampled(&place, "aliases", &["Citrus", "Fig"], &["data.aliases=aliases.json"]);
    assert_eq!(shares(&metrics), [0.5; 3]);
}

#[test]
fn two_answer_blocks_are_paid_for_by_the_released_rule_alone() {
    let place = Place::new();
    let response = "<think>x</think><answer>Lime</answer><answer>Fig</answer>";
    let set = ["tapo.rewards.accuracy=0", "tapo.rewards.exact=0", "tapo.rewards.inclusion=0.9"];
    taught(&place, response);
    let (rollouts, metrics) = sampled(&place, "out", &["Lime", "Lime"], &set);
    for rollout in &rollouts {
        let rewards = ["accuracy", "exact", "inclusion"].map(|name| rollout["rewards"][name].as_f64().unwrap());
        assert_eq!(rewards, [0.0, 0.0, 1.0], "{rollout}");
        assert_eq!((&rollout["answer"], &rollout["answers"]), (&Value::Null, &json!(2)), "{rollout}");
    }
    // The group filter looks at the rule that pays.
    assert_eq!(shares(&metrics), [0.0, 1.0, 1.0]);
}

#[test]
fn a_truth_without_room_is_said_before_the_first_update() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let images = ["a.png", "b.png", "c.png"];
    place.write("tapo.jsonl", format!("{}\n{}\n", triplet(images), triplet(images)));
    for (tokens, told) in [(4, true), (64, false)] {
        let (output, tokens) = (format!("output=room{tokens}"), format!("tapo.max_new_tokens={tokens}"));
        let run = place.run(&["tapo", "-c", "recipe.toml", "--set", &output, "--set", &tokens]);
        assert_eq!(run.status.code(), Some(0));
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        let line = said.lines().find(|line| line.contains("tapo.max_new_tokens"));
        assert_eq!(line.is_some_and(|line| line.contains("tapo.jsonl:1") && line.contains("\"Lime\"")), told, "{said}");
    }
    // Without a think block a shorter response is right, so that there is room where there was none.
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/no-think.toml");
    let needed = |think: bool, tokens: usize| -> Option<usize> {
        let (output, tokens) = (format!("output=alone{think}{tokens}"), format!("tapo.max_new_tokens={tokens}"));
        let mut command = vec!["tapo", "-c", "recipe.toml", "--set", &output, "--set", &tokens];
        command.extend(["-c", recipe.to_str().unwrap()].into_iter().filter(|_| !think));
        let run = place.run(&command);
        assert_eq!(run.status.code(), Some(0), "{run:?}");
        let said = String::from_utf8_lossy(&run.stderr).into_owned();
        let line = said.lines().find(|line| line.contains("tapo.max_new_tokens"))?;
        line.split("needs ").nth(1)?.split(' ').next()?.parse().ok()
    };
    let (thought, alone) = (needed(true, 4).unwrap(), needed(false, 4).unwrap());
    assert!(alone < thought, "{alone} {thought}");
    assert_eq!((needed(true, alone), needed(false, alone)), (Some(thought), None));
}
