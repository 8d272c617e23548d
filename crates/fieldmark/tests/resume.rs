//! Runs of the command that are killed, interrupted, damaged and resumed: they end in the same files, byte for byte, as a
//! run that was left alone.
#![cfg(unix)]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use fieldmark::generate::RandomStream;
use support::{Place, triplet};

/// Eight updates of SFT with two rows held out, or rollout steps of TAPO with a surplus, a row held out, two updates each and a
/// reference model.
fn place() -> Place {
    let place = Place::new();
    let recipe = place
        .recipe()
        .replace("[model]\n", "[run]\nsave_every = 1\n[model]\nstored = \"bf16\"\n")
        .replace("[sft]\nepochs = 2\n", "[sft]\nepochs = 4\n")
        .replace(
            "[tapo]\nepochs = 1\nprompts_per_step = 2\nchunk = 2\nmax_tries = 1\nbatch = 8\n",
            "[tapo]\nepochs = 3\nprompts_per_step = 2\nchunk = 3\nmax_tries = 2\nbatch = 4\neval_every = 2\nloss = { kl_ref = 0.1 }\n",
        )
        .replace("[data.tapo]\n", "[data.tapo]\nvalidation_rows = 1\n")
        .replace("[data.sft]\n", "[data.sft]\nvalidation_rows = 2\n");
    assert!(
        recipe.contains("kl_ref")
            && recipe.contains("epochs = 4")
            && recipe.contains("bf16")
            && recipe.contains("validation")
    );
    place.write("recipe.toml", recipe);
    place.conversations("sft.json", 5, |_, _| ());
    let images = [["a.png", "b.png", "c.png"], ["b.png", "a.png", "c.png"], ["c.png", "b.png", "a.png"]];
    let rows = images.map(|images| triplet(images).to_string()).join("\n");
    place.write("tapo.jsonl", format!("{rows}\n{}\n{}\n", triplet(images[0]), triplet(images[1])));
    place
}

fn args<'a>(stage: &'a str, output: &'a str) -> Vec<String> {
    let output = format!("output={output}");
    [stage, "-c", "recipe.toml", "--set", &output].iter().map(|text| (*text).to_owned()).collect()
}

fn resume(stage: &str, output: &str) -> Vec<String> {
    [args(stage, output), vec!["--resume".into()]].concat()
}

fn run(place: &Place, args: &[String]) -> Output {
    place.run(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

fn succeed(place: &Place, args: &[String]) -> Output {
    let output = run(place, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn spawn(place: &Place, args: &[String]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_fieldmark"))
        .args(args)
        .current_dir(place.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lines of metrics, whole or not.
fn lines(place: &Place, output: &str) -> usize {
    fs::read(place.path(output).join("metrics.jsonl")).map_or(0, |text| text.iter().filter(|&&b| b == b'\n').count())
}

fn entries(place: &Place, folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(place.path(folder))
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect());
    entries.unwrap_or_default()
}

fn is_saving(place: &Place, output: &str) -> bool {
    entries(place, &format!("{output}/checkpoints")).iter().any(|name| name.starts_with(".step-"))
}

/// Everything that does not depend on the clock.
fn same(place: &Place, stage: &str, found: &str, expected: &str) {
    let files = ["checkpoint/model.safetensors", "checkpoint/config.json", "metrics.jsonl"];
    let own: &[&str] =
        if stage == "sft" { &["loss.svg"] } else { &["rollouts.jsonl", "validation.jsonl", "reward.svg"] };
    for file in files.iter().chain(own) {
        let read = |output: &str| fs::read(place.path(output).join(file)).unwrap();
        assert!(read(found) == read(expected), "{found}/{file} is not {expected}/{file}");
    }
    assert_eq!(entries(place, found), entries(place, expected));
    assert_eq!(entries(place, &format!("{found}/checkpoints")), entries(place, &format!("{expected}/checkpoints")));
}

/// Kills a run `kills` times at moments that `stream` draws, then lets it end. Returns how often it was killed, and how often
/// while it saved.
fn killed(place: &Place, stage: &str, output: &str, kills: usize, stream: &mut RandomStream) -> (usize, usize) {
    let (mut done, mut saving) = (0, 0);
    for _ in 0..kills {
        let (start, before) = (Instant::now(), lines(place, output));
        // At its start, in an update or between two, or while it saves; then a little later.
        let phase = stream.below(5);
        let more = 1 + stream.below(2);
        let early = Duration::from_millis(stream.below(250) as u64);
        let later = Duration::from_micros(stream.below(3000) as u64);
        let mut child = spawn(place, &resume(stage, output));
        let ended = loop {
            let now = match phase {
                0 => start.elapsed() >= early,
                1 | 2 => lines(place, output) >= before + more,
                _ => is_saving(place, output),
            };
            if now {
                break false;
            }
            if child.try_wait().unwrap().is_some() {
                break true;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{stage} hangs");
            sleep(Duration::from_micros(300));
        };
        if ended {
            break;
        }
        sleep(later);
        child.kill().unwrap();
        let ended = child.wait_with_output().unwrap();
        if ended.status.code().is_none() {
            done += 1;
            saving += usize::from(is_saving(place, output));
        }
    }
    succeed(place, &resume(stage, output));
    (done, saving)
}

#[test]
fn runs_killed_at_any_moment_end_as_if_they_never_were() {
    let place = place();
    let mut stream = RandomStream::new(7, &["kills"]);
    let (mut kills, mut saving) = (0, 0);
    for stage in ["sft", "tapo"] {
        succeed(&place, &args(stage, stage));
        let mut here = 0;
        for round in 0..6 {
            let output = format!("{stage}-{round}");
            let (killed, caught) = killed(&place, stage, &output, 7, &mut stream);
            same(&place, stage, &output, stage);
            here += killed;
            saving += caught;
            if here >= 11 {
                break;
            }
        }
        assert!(here >= 11, "{stage} was killed {here} times");
        kills += here;
    }
    assert!(kills >= 22 && saving >= 3, "{kills} kills, {saving} while saving");
}

/// Sends a signal by the shell's own `kill`.
fn signal(child: &Child, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", child.id())).status().unwrap();
    assert!(sent.success());
}

#[test]
fn an_interrupt_saves_and_the_run_goes_on_to_the_same_end() {
    let place = place();
    for (stage, names) in [("sft", ["INT", "TERM"]), ("tapo", ["INT", "TERM"])] {
        // Nothing is saved in between, so what is there comes from the signal.
        let without =
            |output: &str| [args(stage, output), ["--set", "run.save_every=0"].map(str::to_owned).to_vec()].concat();
        succeed(&place, &without(stage));
        let output = format!("{stage}-stopped");
        for (times, name) in names.iter().enumerate() {
            let mut command = without(&output);
            command.extend((times > 0).then(|| "--resume".into()));
            let before = lines(&place, &output);
            let child = spawn(&place, &command);
            while lines(&place, &output) <= before {
                sleep(Duration::from_millis(1));
            }
            signal(&child, name);
            let ended = child.wait_with_output().unwrap();
            assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
            let said = String::from_utf8_lossy(&ended.stdout);
            assert!(said.contains(&format!("fieldmark {stage} -c {output}/recipe.toml --resume")), "{said}");
            let saved = entries(&place, &format!("{output}/checkpoints"));
            assert!(saved.len() == times + 1 && said.contains(saved.last().unwrap()), "{saved:?} {said}");
            assert!(!place.path(&output).join("checkpoint").exists());
        }
        // As the message says.
        let recipe = format!("{output}/recipe.toml");
        let end = succeed(&place, &[stage, "-c", &recipe, "--resume"].map(str::to_owned));
        assert!(String::from_utf8_lossy(&end.stdout).contains("checkpoint"));
        fs::remove_dir_all(place.path(&output).join("checkpoints")).unwrap();
        same(&place, stage, &output, stage);
    }
}

#[test]
fn runs_in_16_bits_or_with_adapters_go_on_with_all_that_is_beside_the_weights() {
    let place = place();
    let kahan = ["model.dtype=bf16", "sft.adamw.half=kahan", "tapo.adamw.half=kahan", "tapo.adamw.moments=bf16"];
    let master = ["model.parts.decoder=bf16", "model.parts.vision=bf16"];
    let lora = ["lora.rank=2", "lora.targets=[\"q_proj\", \"down_proj\"]"];
    let qlora = ["lora.rank=2", "lora.quantize=q4", "model.dtype=bf16"];
    for (stage, name, sets) in [
        ("sft", "kahan", &kahan[..]),
        ("tapo", "kahan", &kahan),
        ("sft", "master", &master),
        ("sft", "lora", &lora),
        ("tapo", "qlora", &qlora),
    ] {
        let sets: Vec<String> = sets.iter().flat_map(|set| ["--set".into(), (*set).into()]).collect();
        let (whole, ours) = (format!("{stage}-{name}"), format!("{stage}-{name}-again"));
        for output in [&whole, &ours] {
            succeed(&place, &[args(stage, output), sets.clone()].concat());
        }
        // As if it had been killed two checkpoints before its end.
        fs::remove_dir_all(place.path(&ours).join("checkpoint")).unwrap();
        let folder = format!("{ours}/checkpoints");
        for mark in entries(&place, &folder).iter().rev().take(2) {
            fs::remove_dir_all(place.path(&folder).join(mark)).unwrap();
        }
        succeed(&place, &[resume(stage, &ours), sets].concat());
        same(&place, stage, &ours, &whole);
    }
}

#[test]
fn two_interrupts_stop_at_once() {
    let place = place();
    let slow = ["--set", "sft.epochs=10000"].map(str::to_owned).to_vec();
    let child = spawn(&place, &[args("sft", "out"), slow].concat());
    while lines(&place, "out") == 0 {
        sleep(Duration::from_millis(1));
    }
    signal(&child, "INT");
    signal(&child, "INT");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
}

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
        let go_on = |expected: &[(&str, &str)]| {
            unend();
            let said = stderr(&succeed(&place, &resume(stage, &ours)));
            let notes: Vec<&str> = said.lines().filter(|line| line.starts_with("note: ")).collect();
            assert_eq!(notes.len(), expected.len(), "{said}");
            for (note, (name, reason)) in notes.iter().zip(expected) {
                assert!(note.contains(name) && note.contains(reason), "{note}");
            }
            same(&place, stage, &ours, stage);
        };
        go_on(&[]);
        let weights = folder.join(newest(1)).join("model.safetensors");
        let mut bytes = fs::read(&weights).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&weights, bytes).unwrap();
        go_on(&[(newest(1), "model.safetensors has other content")]);
        fs::remove_file(folder.join(newest(1)).join("trainer/optimizer.bpk")).unwrap();
        let state = folder.join(newest(2)).join("trainer/state.toml");
        fs::write(&state, "").unwrap();
        fs::create_dir(folder.join(".step-000009-x")).unwrap();
        go_on(&[
            (".step-000009-x", "is unfinished"),
            (newest(1), "trainer/optimizer.bpk is missing"),
            (newest(2), "trainer/state.toml has 0 bytes"),
        ]);
        for name in &marks {
            fs::remove_file(folder.join(name).join("trainer/manifest.json")).unwrap();
        }
        let mut expected: Vec<(&str, &str)> =
            marks.iter().rev().map(|name| (name.as_str(), "manifest.json is missing")).collect();
        expected.push((&ours, "no whole checkpoint, so the run starts over"));
        go_on(&expected);
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
    let state =
        fs::read_to_string(place.path("tapo/checkpoints").join(&expected[1]).join("trainer/state.toml")).unwrap();
    assert!(state.contains("mean reward of the rollouts"), "{state}");

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
    assert!(
        said.contains(&format!("lowest validation loss {:.4}: every/checkpoints/{}", best.1, mark(best.0))),
        "{said}"
    );
    let state = fs::read_to_string(place.path("every/checkpoints/step-000012/trainer/state.toml")).unwrap();
    assert!(state.contains(&format!("value = {}", best.1)) && state.contains("loss on the validation set"), "{state}");
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
fn another_recipe_another_stage_or_another_folder_is_not_resumed() {
    let place = place();
    succeed(&place, &args("sft", "out"));
    let before = fs::read(place.path("out/metrics.jsonl")).unwrap();
    let refuse = |stage: &str, output: &str, sets: &[&str], says: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
        let ended = run(&place, &resume(stage, output).into_iter().chain(sets).collect::<Vec<_>>());
        let said = stderr(&ended);
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert!(says.iter().all(|text| said.contains(text)) && said.lines().count() == 1, "{says:?}: {said}");
    };
    refuse("sft", "out", &["sft.epochs=5"], &["`sft.epochs` = 5", "the run in out has 4", "another run"]);
    refuse("sft", "out", &["sft.schedule.lr=1e-4"], &["`sft.schedule.lr`"]);
    refuse("sft", "out", &["seed=1"], &["`seed` = 1"]);
    refuse("sft", "out", &["model.stored=f32"], &["`model.stored` = \"f32\""]);
    refuse("tapo", "out", &[], &["holds a run of `sft`, not of `tapo`"]);
    refuse("sft", "model", &[], &["has no recipe.toml"]);
    refuse("sft", "out", &["run.keep=0"], &["`run.keep` = 0"]);
    refuse("sft", "out", &["run.peak_tflops=0"], &["`run.peak_tflops` = 0"]);
    place.write("file", "");
    refuse("sft", "file", &[], &["is no folder"]);
    let both = run(&place, &[resume("sft", "out"), vec!["--overwrite".into()]].concat());
    assert_eq!(both.status.code(), Some(2));
    // What changes no result may differ, and a finished run is left as it is.
    let neutral = ["--set", "run.keep=1", "--set", "tapo.epochs=9", "--set", "sft.workers=2", "--set", "eval.batch=1"];
    let ended = succeed(&place, &[resume("sft", "out"), neutral.map(str::to_owned).to_vec()].concat());
    assert!(String::from_utf8_lossy(&ended.stdout).contains("at its end: out/checkpoint"));
    assert!(
        fs::read(place.path("out/metrics.jsonl")).unwrap() == before && entries(&place, "out/checkpoints").len() == 3
    );
    // With other workers it still ends the same.
    fs::remove_dir_all(place.path("out/checkpoint")).unwrap();
    fs::remove_dir_all(place.path("out/checkpoints/step-000008")).unwrap();
    succeed(&place, &[resume("sft", "out"), ["--set", "sft.workers=2"].map(str::to_owned).to_vec()].concat());
    succeed(&place, &args("sft", "again"));
    same(&place, "sft", "out", "again");
    // An overwritten run leaves nothing of the one before.
    let over = [args("sft", "out"), ["--overwrite", "--set", "run.save_every=0"].map(str::to_owned).to_vec()].concat();
    succeed(&place, &over);
    assert!(!place.path("out/checkpoints").exists());
}

#[test]
fn a_run_does_not_go_on_with_other_data() {
    for (stage, file) in [("sft", "sft.json"), ("tapo", "tapo.jsonl")] {
        let place = place();
        succeed(&place, &args(stage, "out"));
        fs::remove_dir_all(place.path("out/checkpoint")).unwrap();
        let before = fs::read(place.path(file)).unwrap();
        place.write(file, String::from_utf8(before.clone()).unwrap().replace("Lime", "Plum"));
        let ended = run(&place, &resume(stage, "out"));
        let said = stderr(&ended);
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert!(
            said.contains(&format!("{file}: has other content than when the run began (out/inputs.json)")),
            "{said}"
        );
        fs::write(place.path(file), before).unwrap();
        succeed(&place, &resume(stage, "out"));
    }
}

#[test]
fn a_run_that_diverges_stops_with_a_checkpoint_from_before() {
    let place = place();
    let rates = ["--set", "sft.schedule.lr=1e38", "--set", "run.save_every=0"].map(str::to_owned).to_vec();
    let ended = run(&place, &[args("sft", "out"), rates].concat());
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(2), "{said}");
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains("3 updates in a row") && error.contains("sft.json:"), "{said}");
    assert_eq!(said.matches("skipped: its loss or gradient is not finite").count(), 3, "{said}");
    let saved = entries(&place, "out/checkpoints");
    assert!(saved.len() == 1 && error.contains(saved.first().unwrap()), "{saved:?} {error}");
    // Three rows of the metrics name their samples, and the checkpoint is from before the first of them.
    let text = fs::read_to_string(place.path("out/metrics.jsonl")).unwrap();
    let bad: Vec<u64> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|row| row.get("non_finite").is_some())
        .map(|row| row["step"].as_u64().unwrap())
        .collect();
    assert_eq!(bad.len(), 3);
    assert_eq!(saved.first().unwrap(), &format!("step-{:06}", bad[0] - 1));
}
