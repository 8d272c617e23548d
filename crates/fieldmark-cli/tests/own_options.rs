//! Closed questions from the rollouts of a run.

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Place, lines, refusal::mentions, triplet};

#[test]
fn a_runs_answers_become_the_options_of_the_next() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let images = [["a.png", "b.png", "c.png"], ["b.png", "a.png", "c.png"], ["c.png", "b.png", "a.png"]];
    let rows: Vec<Value> = images
        .into_iter()
        .zip(["Lime", "Fig", "Pear"])
        .map(|(images, name)| {
            let mut row = triplet(images);
            row["answer"] = name.into();
            row
        })
        .collect();
    place.write("tapo.jsonl", rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    let run = |set: &[&str]| {
        let sets = set.iter().flat_map(|set| ["--set", set]);
        place.succeed(&["tapo", "-c", "recipe.toml"].into_iter().chain(sets).collect::<Vec<_>>());
    };
    run(&["output=open", "tapo.max_tries=3", "tapo.prompts_per_step=3", "tapo.chunk=3"]);
    let made = ["data", "options", "open/rollouts.jsonl", "--rows", "tapo.jsonl", "--output", "closed.jsonl"];
    // The random model names nothing, so that options are drawn.
    let said = place.succeed(&[&made[..], &["--options", "2"]].concat());
    assert!(mentions(&said, "closed.jsonl") && mentions(&said, "3 of 3"), "{said}");
    let closed = lines(&place, "closed.jsonl");
    for (row, closed) in rows.iter().zip(&closed) {
        let problem = closed["problem"].as_str().unwrap();
        let (question, list) = problem.split_once(" Choose one of [").unwrap();
        assert_eq!(question, row["problem"].as_str().unwrap());
        let names = ["Lime", "Fig", "Pear"].into_iter().filter(|name| list.contains(&format!("'{name}'"))).count();
        assert!(names == 2 && list.contains(row["answer"].as_str().unwrap()), "{problem}");
        assert_eq!(closed["anchor"], row["anchor"]);
    }
    place.succeed(&["data", "check", "closed.jsonl"]);
    run(&["output=closed", "data.tapo.file=closed.jsonl"]);
    let asked = lines(&place, "closed/rollouts.jsonl");
    assert!(asked.iter().all(|rollout| mentions(rollout["prompt"].as_str().unwrap(), "Choose one of")), "{asked:?}");

    // What exists is kept, and rollouts of other rows are refused with their line.
    let before = fs::read(place.path("closed.jsonl")).unwrap();
    place.refuse(&made).names("closed.jsonl").names("--output");
    assert_eq!(fs::read(place.path("closed.jsonl")).unwrap(), before);
    let other = |row: &str| {
        let line = json!({ "row": row, "truth": "Lime", "answer": "Lime" });
        place.write("other.jsonl", format!("{line}\n"));
        place.refuse(&["data", "options", "other.jsonl", "--rows", "tapo.jsonl", "--output", "new.jsonl"])
    };
    other("tapo.jsonl:2").names("other.jsonl:1").names("tapo.jsonl").names("Fig");
    other("tapo.jsonl:9").names("other.jsonl:1").names("tapo.jsonl");
    other("Lime_001.jpg").names("other.jsonl:1").names_key("data.tapo.file");
    // Only right answers leave nothing to ask.
    other("tapo.jsonl:1").names("other.jsonl").names("3").names("1").names("2");
    place.refuse(&["data", "options", "absent.jsonl", "--rows", "tapo.jsonl", "--output", "new.jsonl"]).names("absent");
    place
        .refuse(&["data", "options", "tapo.jsonl", "--rows", "tapo.jsonl", "--output", "new.jsonl"])
        .names("tapo.jsonl:1");
    assert!(!place.path("new.jsonl").exists());
    let far = place.run(&[&made[..5], &["--output", "model/closed.jsonl"]].concat());
    let said = String::from_utf8(far.stderr).unwrap();
    assert!(far.status.code() == Some(0) && mentions(&said, "data.images"), "{said}");
}
