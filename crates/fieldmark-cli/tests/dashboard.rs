//! Runs on a terminal: the dashboard shows them, stops them as Ctrl-C does, and leaves the terminal as it found it.
#![cfg(all(unix, feature = "tui"))]

mod support;
#[path = "support/terminal.rs"]
mod terminal;

use std::{
    fs,
    time::{Duration, Instant},
};

use support::{Place, triplet};
use terminal::Terminal;

/// Four epochs of three updates with two rows held out, or three rollout steps with two updates each.
fn place() -> Place {
    let place = Place::new();
    let recipe = place
        .recipe()
        .replace("[model]\n", "[run]\nsave_every = 0\n[model]\n")
        .replace("[sft]\nepochs = 2\n", "[sft]\nepochs = 4\n")
        .replace("batch = 8\n", "batch = 4\n")
        .replace("[data.sft]\n", "[data.sft]\nvalidation_rows = 2\n")
        .replace("prompts_per_step = 2\nchunk = 2", "prompts_per_step = 2\nchunk = 1")
        .replace("max_tries = 1", "max_tries = 2");
    place.write("recipe.toml", recipe);
    place.conversations("sft.json", 8, |_, _| ());
    let row = triplet(["a.png", "b.png", "c.png"]).to_string();
    place.write("tapo.jsonl", [row.as_str(); 6].join("\n"));
    place
}

const SFT: [&str; 3] = ["sft", "-c", "recipe.toml"];
/// Only those who stop it see its end.
const LONG: [&str; 5] = ["sft", "-c", "recipe.toml", "--set", "sft.epochs=10000"];

/// A run whose first update takes longer than a test waits.
fn slow(place: &Place) -> Terminal {
    place.conversations("sft.json", 6000, |_, _| ());
    let sets = ["--set", "sft.batch=6000", "--set", "data.sft.validation_rows=0", "--set", "data.check=false"];
    Terminal::start(place, &[&SFT[..], &sets].concat(), &[])
}

fn is_saved(place: &Place) -> bool {
    let saved = fs::read_dir(place.path("out/checkpoints"));
    saved.is_ok_and(|mut folders| folders.any(|folder| folder.unwrap().path().join("model.safetensors").is_file()))
}

#[test]
fn q_and_s_stop_a_run_as_an_interrupt_does() {
    let place = place();
    let mut run = Terminal::start(&place, &LONG, &[]);
    let shown =
        run.wait_for(&["loss", "grad_norm", "lr", "tokens_per_second", "Epochs :", "/10000", "Items", "Valid "]);
    assert!(shown.alternate_screen() && shown.contents().contains("Status: sft"), "{}", shown.contents());
    run.press("q");
    run.wait_for(&["Stop the training."]);
    run.press("s");
    let ended = run.end();
    assert_eq!(ended.code, Some(130));
    ended.gave_the_terminal_back().says(&["parameters", " sft ", "/30000", "loss ", "stopped", "--resume"]);
    assert!(is_saved(&place));
    let stopped = fs::read_to_string(place.path("out/metrics.jsonl")).unwrap();

    // It goes on from there, on the dashboard again.
    let mut run = Terminal::start(&place, &["sft", "-c", "out/recipe.toml", "--resume"], &[]);
    run.wait_for(&["Status: sft", "tokens_per_second", "Train "]);
    run.press("\x03");
    let ended = run.end();
    assert_eq!(ended.code, Some(130));
    ended.gave_the_terminal_back();
    let after = fs::read_to_string(place.path("out/metrics.jsonl")).unwrap();
    assert!(after.starts_with(&stopped) && after.len() > stopped.len());
}

#[test]
fn ctrl_c_is_an_interrupt_and_a_second_one_stops_at_once() {
    let place = place();
    let mut run = slow(&place);
    run.wait_for(&["Status: sft", "Controls"]);
    run.press("\x03");
    run.wait_for(&["stopping"]);
    // Nor does a key that would leave the terminal as it is.
    run.press("\x1a\x1c");
    let start = Instant::now();
    run.press("\x03");
    let ended = run.end();
    assert_eq!(ended.code, Some(130));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    ended.gave_the_terminal_back();
    assert!(!is_saved(&place) && ended.drew());
}

#[test]
fn a_terminal_that_is_closed_ends_a_run_with_a_checkpoint() {
    for dashboard in ["true", "false"] {
        let place = place();
        // An update takes so long that the dashboard ends in the middle of it.
        place.conversations("sft.json", 200, |_, _| ());
        let shown = format!("run.dashboard={dashboard}");
        let sets = ["--set", "sft.batch=200", "--set", "data.check=false", "--set", &shown];
        let code = terminal::closed(&place, &[&LONG[..], &sets].concat(), || {
            fs::read(place.path("out/metrics.jsonl")).is_ok_and(|rows| rows.contains(&b'\n'))
        });
        assert_eq!(code, Some(130), "{dashboard}");
        assert!(is_saved(&place), "{dashboard}");
    }
}

#[test]
fn q_and_k_stop_a_run_at_once() {
    let place = place();
    let mut run = slow(&place);
    run.wait_for(&["Status: sft", "Controls"]);
    run.press("q");
    run.wait_for(&["Kill the program."]);
    let start = Instant::now();
    run.press("k");
    let ended = run.end();
    assert_eq!(ended.code, Some(130));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    ended.gave_the_terminal_back().says(&["Training killed by user."]);
    assert!(!is_saved(&place));
}

#[test]
fn a_run_that_is_shown_is_the_run_that_is_not() {
    let place = place();
    for stage in ["sft", "tapo"] {
        let args = [stage, "-c", "recipe.toml"];
        let plain = place.run(&[&args[..], &["--set", "output=plain"]].concat());
        assert_eq!(plain.status.code(), Some(0));
        let lines = String::from_utf8(plain.stderr).unwrap();
        assert!(!lines.contains('\x1b') && !plain.stdout.contains(&b'\x1b'), "{lines}");
        let progress = |line: &&str| line.trim_start().starts_with(&format!("{stage} "));
        assert!(lines.lines().filter(progress).count() >= 3, "{lines}");
        for off in [["TERM", "dumb"], ["TERM", ""], ["CI", "true"]] {
            let output = format!("output={}", off.concat());
            let args = [&args[..], &["--set", &output]].concat();
            let ended = Terminal::start(&place, &args, &[(off[0], off[1])]).end();
            assert!(ended.code == Some(0) && !ended.drew(), "{off:?}");
        }
        let off = [&args[..], &["--set", "output=off", "--set", "run.dashboard=false"]].concat();
        let ended = Terminal::start(&place, &off, &[]).end();
        assert!(ended.code == Some(0) && !ended.drew());

        let ended = Terminal::start(&place, &args, &[]).end();
        assert_eq!(ended.code, Some(0), "{}", ended.screen.contents());
        let steps = if stage == "sft" { "12/12" } else { "3/3" };
        ended.gave_the_terminal_back().says(&["parameters", &format!(" {stage} {steps}  "), "out/checkpoint"]);
        assert!(ended.drew());
        for file in ["metrics.jsonl", "checkpoint/model.safetensors"] {
            let read = |output: &str| fs::read(place.path(output).join(file)).unwrap();
            assert!(read("out") == read("plain") && read("off") == read("plain"), "{stage} {file}");
        }
        for output in ["plain", "out", "off", "TERMdumb", "TERM", "CItrue"] {
            fs::remove_dir_all(place.path(output)).unwrap();
        }
    }
}

#[test]
fn rollouts_are_shown_while_they_are_drawn() {
    let place = place();
    let sets = ["--set", "tapo.epochs=3000", "--set", "tapo.max_new_tokens=24"];
    let mut run = Terminal::start(&place, &[&["tapo", "-c", "recipe.toml"][..], &sets].concat(), &[]);
    run.wait_for(&["Status: tapo", ": rollouts", "Groups"]);
    let names = ["reward", "kl_neg", "neg_entropy", "clipped_high", "response_tokens", "all_wrong", "sampler_gap"];
    run.wait_for(&names);
    run.wait_for(&[": updates"]);
    run.press("\x03");
    let ended = run.end();
    assert_eq!(ended.code, Some(130));
    ended.gave_the_terminal_back().says(&[" tapo ", "/9000", "stopped", "--resume"]);
    assert!(is_saved(&place));
}

#[test]
fn what_goes_wrong_is_said_after_the_terminal_is_given_back() {
    let place = place();
    // Beyond what a weight can hold: the losses after the first update are no numbers.
    let ended = Terminal::start(&place, &[&SFT[..], &["--set", "sft.schedule.lr=1e38"]].concat(), &[]).end();
    assert_eq!(ended.code, Some(2), "{}", ended.screen.contents());
    assert!(ended.drew());
    ended.gave_the_terminal_back().says(&["parameters", "update 2", "skipped", "update 4", "skipped", "error: "]);
}
