//! Which rows and which images of them the stages train on, validate on and ask about.

mod support;

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};
use support::{Place, lines, names, refusal::mentions, triplet};

#[test]
fn conversations_of_several_images_train() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let run = |output: &str, images: [&str; 2], turns: bool| {
        place.conversations("sft.json", 2, |_, row| {
            row["images"] = images.into();
            row["messages"] = if turns {
                json!([
                    { "role": "user", "content": "<image>Which fruit?" },
                    { "role": "assistant", "content": "Lime" },
                    { "role": "user", "content": "And <image>?" },
                    { "role": "assistant", "content": "Lime green" },
                ])
            } else {
                json!([
                    { "role": "user", "content": "<image> or <image>?" },
                    { "role": "assistant", "content": "Lime" },
                ])
            };
        });
        place.succeed(&["sft", "-c", "recipe.toml", "--set", &format!("output={output}")]);
        (lines(&place, &format!("{output}/metrics.jsonl")), lines(&place, &format!("{output}/timings.jsonl")))
    };
    let (one, timings) = run("one", ["a.png", "b.png"], false);
    assert!(one.len() == 2 && one[1]["loss"].as_f64().unwrap() < one[0]["loss"].as_f64().unwrap(), "{one:?}");
    // Which image stands where matters, and each has tokens of its own.
    let (swapped, swapped_timings) = run("swapped", ["b.png", "a.png"], false);
    assert_ne!(one[0]["loss"], swapped[0]["loss"]);
    assert_eq!(timings[0]["tokens"], swapped_timings[0]["tokens"]);
    let (twice, twice_timings) = run("twice", ["a.png", "a.png"], false);
    assert_ne!(one[0]["loss"], twice[0]["loss"]);
    assert_ne!(timings[0]["tokens"], twice_timings[0]["tokens"]);
    let (turns, _) = run("turns", ["a.png", "b.png"], true);
    assert!(turns[0]["tokens"].as_u64().unwrap() > one[0]["tokens"].as_u64().unwrap());
}

#[test]
fn a_check_names_what_is_no_data_and_where_it_looked() {
    let place = Place::new();
    let row = |image: &str| format!("{}\n", json!({ "image_path": image, "question": "?", "ground_truth": "Lime" }));
    place.write("fruit_seen.jsonl", [row("a.png"), row("./a.png\n")].concat() + "\u{1a}\r\n");
    let report = place.succeed(&["data", "check", "fruit_seen.jsonl"]);
    assert!(report.contains("1 (1 found") && report.contains(" in .)"), "{report}");
    // What passes the check is asked: in the open world alone, because the rows have no options.
    place.write("recipe.toml", place.recipe());
    let sets = ["--set", "data.aliases=aliases.toml", "--limit", "1"];
    place.write("aliases.toml", "Plum = \"Zwetschge\"\n");
    let run = place.run(&[&["eval", "-c", "recipe.toml"][..], &sets].concat());
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(mentions(&said, "aliases.toml") && mentions(&said, "Plum"), "{said}");
    assert_eq!(lines(&place, "out/predictions.jsonl").iter().map(|row| &row["world"]).collect::<Vec<_>>(), ["open"]);
    place.write("gone_seen.jsonl", row("gone.png"));
    let files = ["--set", "eval.files=[\"gone_seen.jsonl\"]", "--set", "output=gone"];
    place.refuse(&[&["eval", "-c", "recipe.toml"][..], &files].concat()).names("gone.png").names("under .");

    place.write("pointer.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n");
    place.refuse(&["data", "check", "pointer.jsonl"]).names("pointer.jsonl").suggests("git lfs pull");
    place.write("cut.jsonl", "{\"image_path\":\n{\"image_path\":\n");
    place.refuse(&["data", "check", "cut.jsonl"]).names("cut.jsonl:1").names("2 rows");
}

#[test]
fn rows_held_out_are_validated_on_and_not_trained_on() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe().replace("lr = 1e-3", "lr = 1e-9"));
    // Row r has r + 1 times the answer, so that numbers of tokens tell rows apart.
    let answer = |row: usize| "<answer>Lime</answer>".repeat(row + 1);
    place.conversations("sft.json", 5, |row, value| value["messages"][1]["content"] = answer(row).into());
    place.conversations("one.json", 1, |_, value| value["messages"][1]["content"] = answer(0).into());
    let mut runs = 0;
    let mut run = |sets: &[&str]| {
        runs += 1;
        let output = format!("output=run{runs}");
        let sets = [&[output.as_str(), "sft.epochs=1"][..], sets].concat();
        place.succeed(
            &[&["sft", "-c", "recipe.toml"][..], &sets.iter().flat_map(|set| ["--set", set]).collect::<Vec<_>>()]
                .concat(),
        );
        let rows = lines(&place, &format!("run{runs}/metrics.jsonl"));
        let picture = fs::read_to_string(place.path(&format!("run{runs}/loss.svg"))).unwrap();
        let last = rows.last().unwrap();
        assert_eq!(picture.contains("validation loss"), last.get("val_loss").is_some());
        let timing = lines(&place, &format!("run{runs}/timings.jsonl")).pop().unwrap();
        assert_eq!(timing.get("validation_seconds").is_some(), last.get("val_loss").is_some());
        let trained: u64 = rows.iter().map(|row| row["tokens"].as_u64().unwrap()).sum();
        (rows.len(), trained, last["val_tokens"].as_u64(), last["val_loss"].as_f64())
    };
    let (updates, all, none, _) = run(&[]);
    assert_eq!((updates, none), (3, None));
    let mut drawn = BTreeSet::new();
    for seed in ["seed=1", "seed=2", "seed=3", "seed=4"] {
        let found = run(&["data.sft.validation_rows=2", seed]);
        assert_eq!((found.0, found.1 + found.2.unwrap()), (2, all));
        assert_eq!(run(&["data.sft.validation_rows=2", seed, "sft.workers=2"]), found);
        drawn.insert(found.2);
    }
    assert!(drawn.len() > 1, "{drawn:?}");
    // A file of its own: next to nothing is learned at this rate, so its loss is what training on it would begin with.
    let (_, trained, tokens, loss) = run(&["data.sft.validation=one.json"]);
    let first = run(&["data.sft.file=one.json", "data.sft.validation=one.json"]);
    assert_eq!((trained, tokens, first.1), (all, first.2, tokens.unwrap()));
    assert!((loss.unwrap() - first.3.unwrap()).abs() < 1e-4 && loss.unwrap() > 1.0, "{loss:?} {first:?}");
}

#[test]
fn triplets_without_negatives_serve_where_none_is_needed() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let rows = [["a.png", "b.png", "c.png"], ["b.png", "a.png", "c.png"]].map(|images| {
        let mut row = triplet(images);
        row.as_object_mut().unwrap().remove("negative");
        row
    });
    place.write("tapo.jsonl", format!("{}\n{}\n", rows[0], rows[1]));
    let run = |output: &str, set: &[&str]| {
        let output = format!("output={output}");
        let set = [&[output.as_str(), "tapo.rewards.exact=0", "tapo.rewards.format=0.25"][..], set].concat();
        let set: Vec<&str> = set.iter().flat_map(|key| ["--set", key]).collect();
        place.succeed(&[&["tapo", "-c", "recipe.toml"][..], &set].concat());
    };
    let update = |output: &str| {
        let rows = lines(&place, &format!("{output}/metrics.jsonl"));
        rows.into_iter().find(|row| row.get("kl_neg").is_some()).unwrap()
    };
    run("patches", &["tapo.negative=patches"]);
    assert!(update("patches")["kl_neg"].as_f64().unwrap() > 1e-9 && update("patches")["neg_entropy"].is_f64());
    run("again", &["tapo.negative=patches"]);
    assert_eq!(update("again")["kl_neg"], update("patches")["kl_neg"]);
    // Where nothing is blackened the negative is the anchor itself, on which all is scored.
    run("whole", &["tapo.negative=patches", "tapo.patches.probability=0"]);
    assert!(update("whole")["kl_neg"].as_f64().unwrap() < 1e-9);
    run("none", &["tapo.loss.gamma=0", "tapo.loss.eta2=0"]);
    assert!(update("none")["kl_neg"].is_null() && update("none")["neg_entropy"].is_null());
    // To choose tokens, the negative is read although no term of the loss has it.
    let chosen = ["tapo.loss.gamma=0", "tapo.loss.eta2=0", "tapo.loss.visual_tokens=0.2", "tapo.negative=patches"];
    run("chosen", &chosen);
    assert!(update("chosen")["kl_neg"].is_null());
    assert!(lines(&place, "chosen/rollouts.jsonl").iter().all(|rollout| rollout["grids"]["negative"].is_array()));
    let sets = chosen[..3].iter().flat_map(|set| ["--set", set]);
    let refused =
        place.refuse(&["tapo", "-c", "recipe.toml", "--set", "output=x"].into_iter().chain(sets).collect::<Vec<_>>());
    refused.names("tapo.jsonl:1").names("negative").names_key("tapo.loss.visual_tokens");
    for rollout in lines(&place, "none/rollouts.jsonl") {
        let part = |name: &str| rollout["rewards"][name].as_f64().unwrap();
        let sum = 0.9 * part("accuracy") + 0.25 * part("format") + 0.0 * part("exact");
        assert!((rollout["reward"].as_f64().unwrap() - sum).abs() < 1e-12 && rollout["negative"].is_null());
    }

    // Questions about single photographs, for DAPO or GRPO.
    let row = |image: &str| json!({ "problem": "<image>Which?", "answer": "Lime", "images": [image] });
    place.write("tapo.jsonl", format!("{}\n{}\n", row("a.png"), row("b.png")));
    run("alone", &["tapo.loss.gamma=0", "tapo.loss.eta2=0", "tapo.positive_rollouts=0"]);
    let rollouts = lines(&place, "alone/rollouts.jsonl");
    assert!(!rollouts.is_empty() && rollouts.iter().all(|rollout| rollout["role"] == "anchor"));
}

#[test]
fn triplets_held_out_are_answered_and_not_trained_on() {
    let place = Place::new();
    place.write("recipe.toml", place.recipe());
    let images = [["a.png", "b.png", "c.png"], ["b.png", "a.png", "c.png"], ["c.png", "b.png", "a.png"]];
    let rows = images.map(|images| triplet(images).to_string()).join("\n");
    place.write("tapo.jsonl", format!("{rows}\n"));
    // A validation row needs no positive and no negative.
    let alone = json!({ "problem": "<image>Which?", "answer": "Lime", "images": ["a.png"] });
    place.write("alone.jsonl", format!("{alone}\n"));
    let command = |output: &str, sets: &[&str]| -> Vec<String> {
        let output = format!("output={output}");
        let sets = [&[output.as_str(), "tapo.epochs=2", "run.save_every=1"][..], sets].concat();
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        ["tapo", "-c", "recipe.toml"].into_iter().chain(sets).map(str::to_owned).collect()
    };
    let rows_in = |file: &str| -> BTreeSet<String> {
        lines(&place, file)
            .iter()
            .map(|line| line["row"].as_str().unwrap().rsplit('/').next().unwrap().into())
            .collect()
    };
    for (output, sets, held) in [
        ("drawn", ["data.tapo.validation_rows=1", "tapo.eval_every=1"], None),
        ("file", ["data.tapo.validation=alone.jsonl", "tapo.eval_every=2"], Some("alone.jsonl:1")),
    ] {
        let command = command(output, &sets);
        let printed = place.succeed(&command);
        let (trained, answered) =
            (rows_in(&format!("{output}/rollouts.jsonl")), rows_in(&format!("{output}/validation.jsonl")));
        assert!(answered.len() == 1 && answered.is_disjoint(&trained), "{answered:?} {trained:?}");
        assert_eq!(trained.len(), if held.is_some() { 3 } else { 2 });
        assert!(held.is_none_or(|held| answered.contains(held)), "{answered:?}");

        let answers = lines(&place, &format!("{output}/validation.jsonl"));
        let metrics = lines(&place, &format!("{output}/metrics.jsonl"));
        let scored: Vec<&Value> = metrics.iter().filter(|row| row.get("val_reward").is_some()).collect();
        let steps = metrics.last().unwrap()["rollout_step"].as_u64().unwrap();
        assert!(scored.len() >= 2 && scored.len() == answers.len());
        assert_eq!(
            (&scored[0]["rollout_step"], scored.last().unwrap()["rollout_step"].as_u64()),
            (&json!(0), Some(steps))
        );
        for (row, answer) in scored.iter().zip(&answers) {
            // One answer: the means are its own.
            assert_eq!((&row["val_reward"], &row["rollout_step"]), (&answer["reward"], &answer["rollout_step"]));
            assert_eq!((&row["val_rewards"], &answer["role"]), (&answer["rewards"], &json!("anchor")));
            assert!(answer["image"].as_str().unwrap().ends_with(".png") && answer.get("advantage").is_none());
        }
        // The first of the highest after the start is the best checkpoint.
        let first_best = scored[1..].iter().fold(scored[1], |best, row| {
            if row["val_reward"].as_f64() > best["val_reward"].as_f64() { row } else { best }
        });
        let best = format!("step-{:06}", first_best["rollout_step"].as_u64().unwrap());
        let last = printed.lines().last().unwrap();
        let reward = format!("{:.4}", first_best["val_reward"].as_f64().unwrap());
        assert!(mentions(last, &reward) && last.ends_with(&best), "{reward}: {printed}");
        assert!(names(&place, &format!("{output}/checkpoints")).contains(&best));
        let picture = fs::read_to_string(place.path(&format!("{output}/reward.svg"))).unwrap();
        assert!(picture.contains("validation reward") && picture.contains("validation accuracy"));
        let timings = lines(&place, &format!("{output}/timings.jsonl"));
        assert_eq!(timings.iter().filter(|row| row["part"] == "validation").count(), scored.len());
        let board = names(&place, &format!("{output}/tensorboard")).into_iter().next().unwrap();
        let events = fs::read(place.path(&format!("{output}/tensorboard/{board}"))).unwrap();
        let tag = b"validation/val_reward";
        assert!(events.windows(tag.len()).any(|bytes| bytes == tag));
    }
    let refuse = |sets: &[&str]| place.refuse(&command("refused", sets));
    refuse(&["data.tapo.validation_rows=3", "seed=1"]).names_key("data.tapo.validation_rows").names("3");
    refuse(&["data.tapo.validation_rows=5"]).names_key("data.tapo.validation_rows").names("5").names("3");
    refuse(&["data.tapo.validation_rows=1", "data.tapo.validation=alone.jsonl"])
        .names_key("data.tapo.validation_rows")
        .names("1")
        .names_key("data.tapo.validation");
}

#[test]
fn labelled_photographs_serve_tapo_and_evaluation() {
    let place = Place::new();
    place.write(
        "recipe.toml",
        place.recipe().replace("[data.tapo]\nfile", "[data.tapo]\n#file").replace("files", "#files"),
    );
    let mut table = "path,class,super_category,split\n".to_owned();
    for (number, class) in ["Lime", "Lemon", "Plum"].iter().enumerate() {
        for (photo, split) in [(0, "train"), (1, "train"), (2, "test")] {
            let name = format!("{class}{photo}.png");
            let shade = [(60 * number) as u8, (40 * photo) as u8, 100];
            image::RgbImage::from_pixel(60, 60, image::Rgb(shade)).save(place.path(&name)).unwrap();
            table.push_str(&format!("{name},{class},Fruit,{split}\n"));
        }
    }
    place.write("labels.csv", table);
    let labels = ["--set", "data.labels=.", "--set", "data.unseen=1"];
    place.succeed(&[&["tapo", "-c", "recipe.toml", "--set", "output=tapo"][..], &labels].concat());
    let rollouts = lines(&place, "tapo/rollouts.jsonl");
    let truths: BTreeSet<&str> = rollouts.iter().map(|row| row["truth"].as_str().unwrap()).collect();
    assert_eq!(truths.len(), 2, "one of three classes is never seen: {truths:?}");
    assert!(rollouts.iter().all(|row| row["negative"] != row["image"]));
    let options = ["--set", "eval.options=3", "--set", "output=eval"];
    let printed = place.succeed(&[&["eval", "-c", "recipe.toml"][..], &labels, &options].concat());
    let predictions = lines(&place, "eval/predictions.jsonl");
    assert_eq!(predictions.len(), 6);
    let unseen: BTreeSet<&str> = predictions
        .iter()
        .filter(|row| row["split"] == "unseen")
        .map(|row| row["ground_truth"].as_str().unwrap())
        .collect();
    assert!(unseen.len() == 1 && unseen.is_disjoint(&truths), "{unseen:?} {truths:?}");
    assert!(printed.contains("closed, seen (2)") && printed.contains("open, unseen (1)"), "{printed}");
}
