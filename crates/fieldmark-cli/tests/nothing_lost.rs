//! No second command costs a run: what is read is not overwritten, what `--overwrite` replaces goes only when the new results
//! are whole, and one command at a time writes to a folder.
#![cfg(unix)]

mod support;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use support::{
    Place, lines, question,
    refusal::{Refusal, mentions},
    runs::{args, entries, place, resume, run, same, spawn, stderr, succeed},
};

fn with(args: Vec<String>, more: &[&str]) -> Vec<String> {
    args.into_iter().chain(more.iter().map(|text| (*text).to_owned())).collect()
}

/// Every file below a folder with its content.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(contents(&path).into_iter().map(|(inner, text)| (format!("{name}/{inner}"), text)));
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

const OVER: [&str; 3] = ["--overwrite", "--set", "model.path=out/checkpoint"];

#[test]
fn a_run_does_not_overwrite_what_it_reads() {
    let place = place();
    succeed(&place, &args("sft", "out"));
    std::os::unix::fs::symlink(place.path("out"), place.path("link")).unwrap();
    for stage in ["sft", "tapo"] {
        for (output, model) in [
            ("out", "out/checkpoint"),
            ("out/../out", "out/checkpoint"),
            ("link", "out/checkpoint"),
            ("out", "link/checkpoints/step-000008"),
            ("model", "model"),
        ] {
            let model = format!("model.path={model}");
            let refusal = place.refuse(&with(args(stage, output), &["--overwrite", "--set", &model]));
            refusal.at_once().names_key("model.path");
        }
    }
    fs::copy(place.path("sft.json"), place.path("out/metrics.jsonl")).unwrap();
    let data = ["--overwrite", "--set", "data.sft.file=out/metrics.jsonl"];
    place.refuse(&with(args("sft", "out"), &data)).at_once().names_key("data.sft.file");
    // A photograph in a folder that would be cleared.
    fs::copy(place.path("a.png"), place.path("out/checkpoints/a.png")).unwrap();
    place.conversations("inside.json", 2, |_, row| row["images"][0] = "out/checkpoints/a.png".into());
    let data = ["--overwrite", "--set", "data.sft.file=inside.json", "--set", "data.sft.validation_rows=0"];
    place.refuse(&with(args("sft", "out"), &data)).names("out/checkpoints");
    // From there into another folder, and an evaluation beside its model.
    succeed(&place, &with(args("sft", "next"), &OVER[1..]));
    place.write("fruit_seen.jsonl", format!("{}\n", question("a.png", "Lime")));
    succeed(&place, &with(args("eval", "out"), &OVER));
    place.refuse(&with(args("eval", "model"), &["--overwrite"])).names_key("model.path");
}

#[test]
fn a_run_that_fails_leaves_what_it_was_to_replace() {
    let place = place();
    succeed(&place, &args("sft", "out"));
    let before = contents(&place.path("out"));
    // It diverges in its first updates, before it has saved anything.
    let diverge = ["--overwrite", "--set", "sft.schedule.lr=1e30", "--set", "run.save_every=100"];
    let ended = run(&place, &with(args("sft", "out"), &diverge));
    Refusal::after_work("sft", &ended).names("lower the learning rate");
    // Its last state is kept, and so is the run before it.
    let now = contents(&place.path("out"));
    for (name, text) in &before {
        let aside = format!(".before-run/{name}");
        let place = if name.starts_with("checkpoint/") { name } else { &aside };
        assert!(now.get(place) == Some(text), "{place}");
    }
    assert!(now.keys().any(|name| name.starts_with("checkpoints/step-")), "{:?}", now.keys());
    // One that cannot even begin leaves the folder as it was. The next that is whole replaces all of it.
    place.conversations("bad.json", 2, |_, row| row["images"][0] = "absent.png".into());
    place.refuse(&with(args("sft", "out"), &["--overwrite", "--set", "data.sft.file=bad.json"])).names("absent.png");
    succeed(&place, &with(args("sft", "out"), &["--overwrite", "--set", "seed=5"]));
    succeed(&place, &with(args("sft", "other"), &["--set", "seed=5"]));
    same(&place, "sft", "out", "other");
}

#[test]
fn a_run_that_is_killed_while_it_overwrites_loses_neither() {
    let place = place();
    succeed(&place, &args("sft", "out"));
    succeed(&place, &with(args("sft", "other"), &["--set", "seed=5"]));
    let model = fs::read(place.path("out/checkpoint/model.safetensors")).unwrap();
    let over = ["--overwrite", "--set", "seed=5", "--set", "run.save_every=0", "--set", "sft.epochs=10000"];
    let mut child = spawn(&place, &with(args("sft", "out"), &over));
    wait(|| !place.path("out/recipe.toml").exists() || !entries(&place, "out").contains(".before-run"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(fs::read(place.path("out/checkpoint/model.safetensors")).unwrap() == model);
    // Another one overwrites both. It is killed before it has saved anything, and resumed: the model that is still there
    // is not taken for its own.
    let mut child = spawn(&place, &with(args("sft", "out"), &[&over[..5], &["--set", "sft.epochs=4"]].concat()));
    let recipe = || fs::read_to_string(place.path("out/recipe.toml")).unwrap_or_default();
    wait(|| !["seed = 5\n", "epochs = 4\n"].iter().all(|line| recipe().contains(line)));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(fs::read(place.path("out/checkpoint/model.safetensors")).unwrap() == model);
    succeed(&place, &with(resume("sft", "out"), &["--set", "seed=5"]));
    same(&place, "sft", "out", "other");
}

#[test]
fn a_folder_in_use_is_not_touched() {
    let place = place();
    place.write("fruit_seen.jsonl", format!("{}\n", question("a.png", "Lime")));
    place.write("words.txt", "a lime\n");
    succeed(&place, &args("sft", "out"));
    fs::remove_dir_all(place.path("out/checkpoint")).unwrap();
    fs::create_dir_all(place.path("out/checkpoints/.step-000009-live")).unwrap();
    place.write("out/checkpoints/.step-000009-live/model.safetensors", "half");
    fs::create_dir(place.path("new")).unwrap();
    let locks = ["out", "new"].map(|name| File::open(place.path(name)).unwrap());
    locks.iter().for_each(|lock| lock.lock().unwrap());
    for command in [
        resume("sft", "out"),
        with(args("sft", "out"), &["--overwrite"]),
        with(args("tapo", "out"), &["--overwrite"]),
        with(args("eval", "out"), &["--overwrite"]),
        args("sft", "new"),
        args("eval", "new"),
        with(vec!["init".into()], &["--corpus", "words.txt", "--out", "new"]),
    ] {
        let option = if command[0] == "init" { "--out DIR" } else { "--set output=DIR" };
        place.refuse(&command).names("another").suggests(option);
    }
    drop(locks);
    assert!(entries(&place, "out/checkpoints").contains(".step-000009-live") && entries(&place, "new").is_empty());
    succeed(&place, &resume("sft", "out"));
    assert!(!entries(&place, "out/checkpoints").contains(".step-000009-live"));
}

#[test]
fn an_evaluation_in_the_folder_of_a_run_leaves_the_run_alone() {
    let place = place();
    place.write("fruit_seen.jsonl", format!("{}\n", question("a.png", "Lime")));
    succeed(&place, &args("sft", "out"));
    fs::remove_dir_all(place.path("out/checkpoint")).unwrap();
    fs::remove_dir_all(place.path("out/checkpoints/step-000008")).unwrap();
    let before = contents(&place.path("out"));
    succeed(&place, &with(args("eval", "out"), &["--overwrite", "--set", "model.path=out/checkpoints/step-000007"]));
    let mut now = contents(&place.path("out"));
    for name in ["eval.toml", "eval-inputs.json", "predictions.jsonl", "report.txt"] {
        assert!(now.remove(name).is_some(), "{name}");
    }
    assert!(now == before);
    succeed(&place, &resume("sft", "out"));
    succeed(&place, &args("sft", "again"));
    let model = |output: &str| fs::read(place.path(output).join("checkpoint/model.safetensors")).unwrap();
    assert!(model("out") == model("again"));
}

#[test]
fn a_run_goes_on_wherever_its_inputs_lie_and_only_with_the_same_ones() {
    let place = place();
    let unend = |output: &str| {
        fs::remove_dir_all(place.path(output).join("checkpoint")).unwrap();
        fs::remove_dir_all(place.path(output).join("checkpoints/step-000008")).unwrap();
    };
    succeed(&place, &args("sft", "whole"));
    for output in ["out", "moved"] {
        succeed(&place, &args("sft", output));
        unend(output);
    }
    // The same bytes under other paths.
    fs::create_dir(place.path("else")).unwrap();
    for name in ["sft.json", "a.png", "b.png", "c.png"] {
        fs::copy(place.path(name), place.path("else").join(name)).unwrap();
    }
    fs::rename(place.path("model"), place.path("else/model")).unwrap();
    let sets = ["--set", "data.sft.file=else/sft.json", "--set", "model.path=else/model"];
    for name in ["else/b.png", "else/model/model.safetensors", "else/model/tokenizer.json"] {
        let before = fs::read(place.path(name)).unwrap();
        let mut changed = before.clone();
        let middle = changed.len() / 2;
        if name.ends_with("json") {
            changed.push(b'\n')
        } else {
            changed[middle] ^= 1
        }
        fs::write(place.path(name), changed).unwrap();
        let refusal = place.refuse(&with(resume("sft", "out"), &sets));
        refusal.suggests("--set output=DIR");
        if name.ends_with("png") {
            refusal.names("else/b.png")
        } else {
            refusal.names_key("model.path")
        };
        fs::write(place.path(name), before).unwrap();
    }
    succeed(&place, &with(resume("sft", "out"), &sets));
    same(&place, "sft", "out", "whole");
    // The run's own recipe from another folder, after the folder of the run has moved too.
    fs::rename(place.path("else/model"), place.path("model")).unwrap();
    fs::rename(place.path("moved"), place.path("else/run")).unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_fieldmark"))
        .args(["sft", "-c", "run/recipe.toml", "--resume"])
        .current_dir(place.path("else"))
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    same(&place, "sft", "else/run", "whole");
}

#[test]
fn a_run_with_a_list_of_an_earlier_version_goes_on() {
    let place = place();
    succeed(&place, &args("sft", "whole"));
    succeed(&place, &args("sft", "out"));
    fs::remove_dir_all(place.path("out/checkpoint")).unwrap();
    let list: serde_json::Value = serde_json::from_slice(&fs::read(place.path("out/inputs.json")).unwrap()).unwrap();
    let mut file = list["files"]["data.sft.file"].clone();
    let path = file.as_object_mut().unwrap().remove("path").unwrap();
    place.write("out/inputs.json", serde_json::json!({ path.as_str().unwrap(): file }).to_string());
    succeed(&place, &resume("sft", "out"));
    same(&place, "sft", "out", "whole");
}

/// A place with twelve questions in two files of the same name, and a photograph of its own for one of them.
fn questions() -> Place {
    let place = Place::new();
    place.write("recipe.toml", format!("{}batch = 2\n", place.recipe()));
    fs::copy(place.path("b.png"), place.path("own.png")).unwrap();
    let rows = |images: [&str; 3]| images.map(|image| format!("{}\n", question(image, "Lime"))).concat();
    fs::create_dir(place.path("x")).unwrap();
    place.write("fruit_seen.jsonl", rows(["a.png", "b.png", "own.png"]));
    place.write("x/fruit_seen.jsonl", rows(["c.png", "b.png", "a.png"]));
    place
}

fn evaluate(output: &str) -> Vec<String> {
    let files = ["--set", "eval.files=[\"fruit_seen.jsonl\", \"x/fruit_seen.jsonl\"]", "--set", "data.images=."];
    with(args("eval", output), &files)
}

fn answers(place: &Place, output: &str) -> Vec<u8> {
    fs::read(place.path(output).join("predictions.jsonl")).unwrap_or_default()
}

#[test]
fn an_evaluation_that_is_killed_or_interrupted_goes_on_to_the_same_answers() {
    let place = questions();
    succeed(&place, &evaluate("whole"));
    let whole = answers(&place, "whole");
    let rows = lines(&place, "whole/predictions.jsonl");
    assert_eq!(rows.len(), 12);
    assert!(rows[0]["file"] != rows[6]["file"] && rows[6]["file"] == "x/fruit_seen.jsonl", "{}", rows[6]["file"]);
    let report = fs::read_to_string(place.path("whole/report.txt")).unwrap();
    assert!(report.contains("closed, seen (6)") && report.contains("12 of 12 questions"), "{report}");

    let go_on = || with(evaluate("out"), &["--resume"]);
    let mut killed = 0;
    // Killed after its first answers, then interrupted, then with a line that is cut short.
    for signal in ["-KILL", "-INT"] {
        let before = answers(&place, "out").len();
        let child = spawn(&place, &go_on());
        wait(|| answers(&place, "out").len() <= before);
        let sent = Command::new("kill").arg(signal).arg(child.id().to_string()).status().unwrap();
        assert!(sent.success());
        let ended = child.wait_with_output().unwrap();
        assert!(whole.starts_with(&answers(&place, "out")));
        if ended.status.code() == Some(130) {
            let said = String::from_utf8_lossy(&ended.stdout);
            assert!(said.contains("fieldmark eval -c out/eval.toml --resume"), "{said}");
        }
        killed += usize::from(ended.status.code() != Some(0));
    }
    assert!(killed > 0);
    fs::write(place.path("out/predictions.jsonl"), &whole[..whole.len() / 2]).unwrap();
    // Scores can be read at any time, and say how many questions they are about.
    let partial = place.succeed(&["eval", "--score-only", "out/predictions.jsonl"]);
    let rows = answers(&place, "out").iter().filter(|byte| **byte == b'\n').count();
    for text in [format!("{rows} of 12 questions"), format!("out/predictions.jsonl:{}", rows + 1)] {
        assert!(mentions(&partial, &text), "{text}: {partial}");
    }
    assert!(partial.contains("fieldmark eval -c out/eval.toml --resume"), "{partial}");
    for (set, key) in [("eval.max_new_tokens=5", "eval.max_new_tokens"), ("seed=3", "seed")] {
        place.refuse(&with(go_on(), &["--set", set])).at_once().names_key(key).suggests("-c out/eval.toml");
    }
    let before = fs::read(place.path("c.png")).unwrap();
    fs::copy(place.path("a.png"), place.path("c.png")).unwrap();
    place.refuse(&go_on()).names("c.png");
    fs::write(place.path("c.png"), before).unwrap();
    let weights = fs::read(place.path("model/model.safetensors")).unwrap();
    let mut other = weights.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(place.path("model/model.safetensors"), other).unwrap();
    place.refuse(&go_on()).names("model/model.safetensors");
    fs::write(place.path("model/model.safetensors"), weights).unwrap();
    succeed(&place, &go_on());
    assert!(answers(&place, "out") == whole);
    assert_eq!(fs::read_to_string(place.path("out/report.txt")).unwrap(), report);
    assert_eq!(entries(&place, "out"), entries(&place, "whole"));
}

#[test]
fn a_bad_row_of_an_evaluation_costs_that_row() {
    let place = questions();
    succeed(&place, &evaluate("whole"));
    let photo = fs::read(place.path("own.png")).unwrap();
    fs::write(place.path("own.png"), &photo[..photo.len() / 2]).unwrap();
    let ended = run(&place, &evaluate("out"));
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(said.trim_end().lines().last().unwrap().starts_with("2 of 12 questions could not be asked"), "{said}");
    assert!(said.contains("2 of 12 questions could not be asked and count as wrong"), "{said}");
    let rows = lines(&place, "out/predictions.jsonl");
    let bad: Vec<usize> = (0..12).filter(|&row| rows[row].get("error").is_some()).collect();
    assert_eq!(bad, [4, 5]);
    assert!(rows[4]["error"].as_str().unwrap().contains("own.png") && rows[4]["output"] == "");
    // Once it is mended, only its rows are asked again.
    fs::write(place.path("own.png"), photo).unwrap();
    succeed(&place, &with(evaluate("out"), &["--resume"]));
    assert!(answers(&place, "out") == answers(&place, "whole"));
    // `data check` sees it before.
    place.succeed(&["data", "check", "fruit_seen.jsonl"]);
    fs::write(place.path("own.png"), &fs::read(place.path("own.png")).unwrap()[..400]).unwrap();
    let checked = place.run(&["data", "check", "fruit_seen.jsonl"]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(2), "{said}");
    assert!(said.lines().any(|line| line.starts_with("fruit_seen.jsonl:3: ") && line.contains("own.png")), "{said}");
}

#[test]
fn an_evaluation_replaces_another_only_when_it_is_whole() {
    let place = questions();
    succeed(&place, &evaluate("out"));
    let before = contents(&place.path("out"));
    place.refuse(&evaluate("out")).suggests("--overwrite");
    let over = with(evaluate("out"), &["--overwrite", "--set", "eval.max_new_tokens=3"]);
    let mut child = spawn(&place, &over);
    wait(|| answers(&place, "out").is_empty() || !entries(&place, "out").contains(".before-eval"));
    child.kill().unwrap();
    child.wait().unwrap();
    let now = contents(&place.path("out"));
    let kept = |name: &str| now.get(&format!(".before-eval/{name}")).or(now.get(name)).cloned();
    // Unless the new one had ended already.
    if now.keys().any(|name| name.starts_with(".before-eval/")) {
        assert!(before.iter().all(|(name, text)| kept(name).as_ref() == Some(text)));
    }
    succeed(&place, &over);
    assert_eq!(entries(&place, "out").len(), before.len());
    assert!(answers(&place, "out") != before["predictions.jsonl"]);
}

/// Waits as long as `is_early` is true.
fn wait(is_early: impl Fn() -> bool) {
    let start = Instant::now();
    while is_early() {
        assert!(start.elapsed() < Duration::from_secs(60), "hangs");
        sleep(Duration::from_millis(1));
    }
}
