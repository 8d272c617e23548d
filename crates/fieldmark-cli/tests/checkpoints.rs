//! The checkpoints of a run: which are kept, what is in them, which is the best, and what happens to damaged ones.
#![cfg(unix)]

mod support;

use std::fs;

use support::{
    Place,
    refusal::{Refusal, mentions},
    runs::{args, entries, place, resume, run, same, stderr, succeed},
};

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_is_used() {
    let place = place();
    for stage in ["sft", "tapo"] {
        succeed(&place, &args(stage, stage));
        let ours = format!("{stage}-damaged");
        succeed(&place, &args(stage, &ours));
        let folder = place.path(&ours).join("checkpoints");
        let marks: Vec<String> = entries(&place, &format!("{ours}/checkpoints")).into_iter().collect();
        let newest = |n: usize| marks[marks.len() - n].as_str();
        // As if it had been killed just before its last file.
        let unend = || fs::remove_dir_all(place.path(&ours).join("checkpoint")).unwrap();
        // Each note names a checkpoint, or the run, and what is wrong with it.
        let go_on = |expected: &[(&str, &[&str])]| {
            unend();
            let said = stderr(&succeed(&place, &resume(stage, &ours)));
            // Once the data is read, notes are about the data and the training.
            let before =
                said.lines().take_while(|line| !["check data", "part "].iter().any(|next| line.starts_with(next)));
            let notes: Vec<&str> = before.filter(|line| line.starts_with("note: ")).collect();
            assert_eq!(notes.len(), expected.len(), "{said}");
            for (note, (name, reasons)) in notes.iter().zip(expected) {
                assert!(mentions(note, name) && reasons.iter().all(|reason| mentions(note, reason)), "{note}");
            }
            same(&place, stage, &ours, stage);
        };
        go_on(&[]);
        let weights = folder.join(newest(1)).join("model.safetensors");
        let mut bytes = fs::read(&weights).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&weights, bytes).unwrap();
        go_on(&[(newest(1), &["model.safetensors", "SHA-256"])]);
        fs::remove_file(folder.join(newest(1)).join("trainer/optimizer.bpk")).unwrap();
        let state = folder.join(newest(2)).join("trainer/state.toml");
        fs::write(&state, "").unwrap();
        fs::create_dir(folder.join(".step-000009-x")).unwrap();
        go_on(&[
            (".step-000009-x", &[]),
            (newest(1), &["trainer/optimizer.bpk"]),
            (newest(2), &["trainer/state.toml", "0"]),
        ]);
        for name in &marks {
            fs::remove_file(folder.join(name).join("trainer/manifest.json")).unwrap();
        }
        // Weights that could still be loaded are not trained over again.
        unend();
        for gone in [None, Some("trainer")] {
            for name in marks.iter().filter(|_| gone.is_some()) {
                fs::remove_dir_all(folder.join(name).join("trainer")).unwrap();
            }
            let refusal = place.refuse(&resume(stage, &ours));
            refusal.at_once().names(&ours).names(newest(1)).names("trainer/manifest.json").suggests("--overwrite");
        }
        // Without any of them nothing is lost, and it starts again.
        fs::remove_dir_all(&folder).unwrap();
        let said = stderr(&succeed(&place, &resume(stage, &ours)));
        assert!(said.lines().any(|line| line.starts_with("note: ") && mentions(line, &ours)), "{said}");
        same(&place, stage, &ours, stage);
    }
}

#[test]
fn the_newest_three_and_the_best_are_kept_and_are_whole_folders() {
    let place = place();
    let no_rows = ["--set", "data.sft.validation_rows=0"].map(str::to_owned).to_vec();
    place.conversations("sft.json", 3, |_, _| ());
    succeed(&place, &[args("sft", "sft"), no_rows].concat());
    let kept = |output: &str| entries(&place, &format!("{output}/checkpoints")).into_iter().collect::<Vec<_>>();
    assert_eq!(kept("sft"), ["step-000006", "step-000007", "step-000008"]);
    let files = entries(&place, "sft/checkpoints/step-000007");
    let expected = entries(&place, "model").into_iter().chain(["trainer".into()]).collect();
    assert!(files.is_superset(&expected), "{files:?}");
    let trainer = entries(&place, "sft/checkpoints/step-000007/trainer");
    assert_eq!(trainer, ["manifest.json", "optimizer.bpk", "state.toml", "weights"].map(str::to_owned).into());
    // It answers as it is.
    let ask = ["ask", "--model", "sft/checkpoints/step-000007", "--image", "a.png", "Which?", "--max-new-tokens", "2"];
    place.succeed(&ask);

    // The shorter the answer the better: where many tokens end one, an untrained model does so by chance.
    let ends: Vec<u32> = (0..320).step_by(20).collect();
    place.write("model/generation_config.json", serde_json::json!({ "eos_token_id": ends }).to_string());
    let rewards = |output: &str| -> Vec<f64> {
        let text = fs::read_to_string(place.path(output).join("metrics.jsonl")).unwrap();
        let rows = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        rows.filter(|row| row.get("tries").is_some()).map(|row| row["reward"].as_f64().unwrap_or(f64::NAN)).collect()
    };
    let sets = ["run.keep=1", "tapo.epochs=5", "tapo.max_new_tokens=24", "tapo.rewards.length_penalty=1.0"];
    let sets = sets.iter().chain(&["tapo.length_cache=24", "tapo.schedule.lr=0.0", "data.tapo.validation_rows=0"]);
    let more = sets.flat_map(|set| ["--set".to_owned(), (*set).to_owned()]).collect();
    succeed(&place, &[args("tapo", "tapo"), more].concat());
    let rewards = rewards("tapo");
    // The rollouts of step s + 1 judge checkpoint s; those of the first judge the model it all began with.
    let mut best = None;
    for (step, &reward) in rewards.iter().enumerate().skip(1) {
        if reward.is_finite() && best.is_none_or(|(_, most)| reward > most) {
            best = Some((step, reward));
        }
    }
    let best = best.unwrap().0;
    assert!(best > 1 && best + 1 < rewards.len(), "{rewards:?}");
    let expected = [best, rewards.len()].map(|step| format!("step-{step:06}"));
    assert_eq!(kept("tapo"), expected, "{rewards:?}");
    let state = best_of(&place, &format!("tapo/checkpoints/{}", expected[1]));
    assert_eq!(state["mark"]["step"].as_integer(), i64::try_from(best).ok(), "{state}");
    assert!(mentions(state["metric"].as_str().unwrap(), "reward"), "{state}");

    let none = ["--set", "run.save_every=0"].map(str::to_owned).to_vec();
    succeed(&place, &[args("sft", "none"), none].concat());
    assert!(!place.path("none/checkpoints").exists());
}

#[test]
fn the_best_of_sft_is_the_lowest_on_the_validation_set() {
    let place = place();
    // Another answer than the one that is learned: what is learned of it at first is soon forgotten.
    place.conversations("other.json", 2, |_, row| {
        row["messages"][1]["content"] = "<think>green</think> <answer>Which fruit? You are a helpful</answer>".into();
    });
    let run = |output: &str, sets: &[&str]| {
        let both = ["data.sft.validation_rows=0", "data.sft.validation=other.json", "sft.schedule.lr=0.01"];
        let sets = both.iter().chain(sets).flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
        let said = succeed(&place, &args("sft", output).into_iter().chain(sets).collect::<Vec<_>>());
        let text = fs::read_to_string(place.path(output).join("metrics.jsonl")).unwrap();
        let mut losses = Vec::new();
        for row in text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
            losses.extend(row["val_loss"].as_f64().map(|loss| (row["step"].as_u64().unwrap(), loss)));
        }
        let best = *losses.iter().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        let kept: Vec<String> = entries(&place, &format!("{output}/checkpoints")).into_iter().collect();
        (losses, best, kept, String::from_utf8(said.stdout).unwrap())
    };
    let mark = |step: u64| format!("step-{step:06}");
    // Twelve updates, each scored, each saved: the best is kept beside the newest.
    let (losses, best, kept, said) = run("every", &["sft.eval_every=1", "run.keep=2"]);
    assert!(losses.len() == 12 && best.0 < 11, "{losses:?}");
    assert_eq!(kept, [mark(best.0), mark(11), mark(12)]);
    let (loss, folder) = (format!("{:.4}", best.1), format!("every/checkpoints/{}", mark(best.0)));
    assert!(said.lines().any(|line| mentions(line, &loss) && line.ends_with(&folder)), "{said}");
    let state = best_of(&place, "every/checkpoints/step-000012");
    assert_eq!(state["value"].as_float(), Some(best.1));
    assert!(mentions(state["metric"].as_str().unwrap(), "validation"), "{state}");
    // Where nothing else is due, what is the lowest yet is saved all the same.
    let (again, _, kept, _) = run("rare", &["sft.eval_every=1", "run.keep=1", "run.save_every=100"]);
    assert_eq!((again, kept), (losses.clone(), vec![mark(best.0)]));
    // Once an epoch, by default.
    let (epochs, best, kept, _) = run("epochs", &["run.keep=1", "run.save_every=5"]);
    assert_eq!(epochs, losses.iter().copied().filter(|(step, _)| step % 3 == 0).collect::<Vec<_>>());
    assert_eq!(kept, [mark(best.0), mark(10)]);
    let (last, _, kept, _) = run("last", &["sft.eval_every=0", "run.save_every=0"]);
    assert_eq!((last, kept), (losses[11..].to_vec(), Vec::new()));
}

#[test]
fn a_run_that_diverges_stops_with_a_checkpoint_from_before() {
    let place = place();
    let rates = ["--set", "sft.schedule.lr=1e38", "--set", "run.save_every=0"].map(str::to_owned).to_vec();
    let ended = run(&place, &[args("sft", "out"), rates].concat());
    let error = Refusal::after_work("sft", &ended);
    // Three rows of the metrics name their samples.
    let text = fs::read_to_string(place.path("out/metrics.jsonl")).unwrap();
    let mut bad = Vec::new();
    for row in text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        if let Some(samples) = row.get("non_finite") {
            bad.push((row["step"].as_u64().unwrap(), samples[0].as_str().unwrap().to_owned()));
        }
    }
    assert_eq!(bad.len(), 3);
    let said = stderr(&ended);
    let skipped: Vec<&str> = said.lines().filter(|line| mentions(line, "skipped")).collect();
    assert_eq!(skipped.len(), 3, "{said}");
    for (line, (step, sample)) in skipped.iter().zip(&bad) {
        assert!(mentions(line, &format!("update {step}")) && mentions(line, sample), "{line}");
    }
    // The checkpoint is from before the first of them.
    let saved = entries(&place, "out/checkpoints");
    assert_eq!(saved, [format!("step-{:06}", bad[0].0 - 1)].into());
    error.names("3").names(&bad[2].0.to_string()).names(&bad[2].1).names(saved.first().unwrap());
}

/// What the state of a checkpoint says of the best one.
fn best_of(place: &Place, checkpoint: &str) -> toml::Table {
    let text = fs::read_to_string(place.path(checkpoint).join("trainer/state.toml")).unwrap();
    let mut state: toml::Table = text.parse().unwrap();
    match state.remove("best") {
        Some(toml::Value::Table(best)) => best,
        other => panic!("{checkpoint}: {other:?}"),
    }
}
