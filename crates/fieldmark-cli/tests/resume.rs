//! Runs of the command that are killed, interrupted, damaged and resumed: they end in the same files, byte for byte, as a
//! run that was left alone.
#![cfg(unix)]

mod support;

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use fieldmark::stream::RandomStream;
use support::{
    Place,
    refusal::mentions,
    runs::{args, entries, kill, place, resume, run, same, spawn, start, stderr, succeed},
};

/// Lines of metrics, whole or not.
fn lines(place: &Place, output: &str) -> usize {
    fs::read(place.path(output).join("metrics.jsonl")).map_or(0, |text| text.iter().filter(|&&b| b == b'\n').count())
}

fn is_saving(place: &Place, output: &str) -> bool {
    entries(place, &format!("{output}/checkpoints")).iter().any(|name| name.starts_with(".step-"))
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
    for (stage, names) in [("sft", &["INT", "HUP", "TERM"][..]), ("tapo", &["INT", "TERM"])] {
        // Nothing is saved in between, so what is there comes from the signal.
        let without =
            |output: &str| [args(stage, output), ["--set", "run.save_every=0"].map(str::to_owned).to_vec()].concat();
        succeed(&place, &without(stage));
        let output = format!("{stage}-stopped");
        let mut told = BTreeSet::new();
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
            // One more, unless the validation was stopped that belongs to the last one's step.
            told.insert(saved.last().unwrap().clone());
            assert!(saved == told && said.contains(saved.last().unwrap()), "{saved:?} {told:?} {said}");
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
fn a_signal_ends_a_sampling_phase_and_the_run_goes_on_to_the_same_end() {
    let place = place();
    // Ten chunks a step: the first are logged long before the last.
    let sets = ["tapo.prompts_per_step=10", "tapo.chunk=1", "tapo.whole_chunks=false", "tapo.max_tries=10"];
    let counts = ["tapo.epochs=1", "tapo.anchor_rollouts=1", "tapo.positive_rollouts=1", "tapo.batch=20"];
    let sets = [&sets[..], &counts, &["run.save_every=0"]].concat();
    let slow = |output: &str| -> Vec<String> {
        let sets = sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
        args("tapo", output).into_iter().chain(sets).collect()
    };
    succeed(&place, &slow("tapo"));
    let child = spawn(&place, &slow("stopped"));
    let sampled = || fs::metadata(place.path("stopped/rollouts.jsonl")).is_ok_and(|file| file.len() > 0);
    while !sampled() {
        sleep(Duration::from_millis(1));
    }
    signal(&child, "INT");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
    // The validation of the first model was made; the rollouts of the first step were not.
    assert_eq!(lines(&place, "stopped"), 1);
    let folder = "stopped/checkpoints";
    assert_eq!(entries(&place, folder).iter().collect::<Vec<_>>(), ["step-000000"]);
    succeed(&place, &["tapo", "-c", "stopped/recipe.toml", "--resume"].map(str::to_owned));
    fs::remove_dir_all(place.path(folder)).unwrap();
    same(&place, "tapo", "stopped", "tapo");
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
        kill(&place, &ours);
        succeed(&place, &[resume(stage, &ours), sets].concat());
        same(&place, stage, &ours, &whole);
    }
}

#[test]
fn a_resumed_run_counts_its_own_steps() {
    let place = place();
    for (stage, unit) in [("sft", "updates"), ("tapo", "rollout steps")] {
        let said = |output: Output| String::from_utf8(output.stdout).unwrap().lines().next().unwrap_or("").to_owned();
        let whole = said(succeed(&place, &args(stage, stage)));
        let steps = if stage == "sft" { 8 } else { 6 };
        assert!(whole.starts_with(&format!("{steps} {unit} on ")), "{whole}");
        // As if it had been killed in its last step.
        fs::remove_dir_all(place.path(stage).join("checkpoint")).unwrap();
        let folder = format!("{stage}/checkpoints");
        let last = entries(&place, &folder).pop_last().unwrap();
        fs::remove_dir_all(place.path(&folder).join(last)).unwrap();
        let resumed = said(succeed(&place, &resume(stage, stage)));
        assert!(resumed.starts_with(&format!("{steps} {unit} (1 of them now) on ")), "{resumed}");
    }
}

/// The command under a shell that ignores SIGHUP, as `nohup` does.
fn spawn_ignoring(place: &Place, args: &[String]) -> Child {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_fieldmark")]);
    start(shell, place, args)
}

#[test]
fn a_terminal_that_is_closed_ends_a_run_with_a_checkpoint_unless_nohup_says_otherwise() {
    let place = place();
    let run = |output: &str, epochs: &str| {
        let sets = ["--set".into(), format!("sft.epochs={epochs}"), "--set".into(), "run.save_every=0".into()];
        [args("sft", output), sets.to_vec()].concat()
    };
    let wait = |output: &str| {
        while lines(&place, output) == 0 {
            sleep(Duration::from_millis(1));
        }
    };
    let child = spawn(&place, &run("out", "10000"));
    wait("out");
    // The system and the shell may both say it.
    signal(&child, "HUP");
    signal(&child, "HUP");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", stderr(&ended));
    assert_eq!(entries(&place, "out/checkpoints").len(), 1);
    let child = spawn_ignoring(&place, &run("ignoring", "40"));
    wait("ignoring");
    signal(&child, "HUP");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", stderr(&ended));
    assert_eq!(lines(&place, "ignoring"), 80);
}

#[test]
fn an_evaluation_that_has_no_answer_yet_is_stopped_at_once() {
    let place = place();
    place.write("fruit_seen.jsonl", format!("{}\n", support::question("a.png", "Lime")));
    // It waits for names that nobody writes.
    let made = Command::new("mkfifo").arg(place.path("names.json")).status().unwrap();
    assert!(made.success());
    let waits = ["--set", "data.aliases=names.json"].map(str::to_owned).to_vec();
    let mut child = spawn(&place, &[args("eval", "out"), waits].concat());
    sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none());
    signal(&child, "INT");
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(20) {
            child.kill().unwrap();
            panic!("still waits");
        }
        sleep(Duration::from_millis(5));
    }
    assert!(!place.path("out").exists());
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
fn another_recipe_another_stage_or_another_folder_is_not_resumed() {
    let place = place();
    succeed(&place, &args("sft", "out"));
    let before = fs::read(place.path("out/metrics.jsonl")).unwrap();
    let refuse = |stage: &str, output: &str, sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set".to_owned(), (*set).to_owned()]);
        let refusal = place.refuse(&resume(stage, output).into_iter().chain(sets).collect::<Vec<_>>());
        refusal.at_once();
        refusal
    };
    refuse("sft", "out", &["sft.epochs=5"])
        .names_key("sft.epochs")
        .names("5")
        .names("4")
        .names("out")
        .suggests("--set output=DIR")
        .suggests("-c out/recipe.toml");
    refuse("sft", "out", &["sft.schedule.lr=1e-4"]).names_key("sft.schedule.lr").names("out");
    refuse("sft", "out", &["seed=1"]).names_key("seed").names("1").names("out");
    refuse("sft", "out", &["model.stored=f32"]).names_key("model.stored").names("f32").names("bf16").names("out");
    refuse("tapo", "out", &[]).names("out").names("sft").names("tapo").suggests("--set output=DIR");
    fs::create_dir(place.path("mine")).unwrap();
    place.write("mine/notes.txt", "");
    refuse("sft", "mine", &[]).names("mine").names("recipe.toml").suggests("--set output=DIR");
    refuse("sft", "model", &[]).names_key("model.path").suggests("--set output=DIR");
    refuse("sft", "out", &["run.keep=0"]).names_key("run.keep").names("0");
    refuse("sft", "out", &["run.peak_tflops=0"]).names_key("run.peak_tflops").names("0");
    place.write("taken", "");
    refuse("sft", "taken", &[]).names("taken").suggests("--set output=DIR");
    let both = run(&place, &[resume("sft", "out"), vec!["--overwrite".into()]].concat());
    assert_eq!(both.status.code(), Some(2));
    let said = stderr(&both);
    assert!(mentions(&said, "--resume") && mentions(&said, "--overwrite"), "{said}");
    // What changes no result may differ, and a finished run is left as it is.
    let neutral = ["--set", "run.keep=1", "--set", "tapo.epochs=9", "--set", "sft.workers=2", "--set", "eval.batch=1"];
    let ended = succeed(&place, &[resume("sft", "out"), neutral.map(str::to_owned).to_vec()].concat());
    // One line: a run that has trained prints its scores too.
    let printed = String::from_utf8_lossy(&ended.stdout);
    assert!(printed.lines().count() == 1 && printed.ends_with(" out/checkpoint\n"), "{printed}");
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
        place.refuse(&resume(stage, "out")).at_once().names(file).names("out/inputs.json").suggests("--set output=DIR");
        fs::write(place.path(file), before).unwrap();
        succeed(&place, &resume(stage, "out"));
    }
}
