//! Runs of the stages that save after every step, and what they leave behind.

use std::{
    collections::BTreeSet,
    fs,
    process::{Child, Command, Output, Stdio},
};

use super::{Place, triplet};

/// Eight updates of SFT with two rows held out, or rollout steps of TAPO with a surplus, a row held out, two updates each and a
/// reference model.
pub fn place() -> Place {
    let place = Place::new();
    let recipe = place
        .recipe()
        .replace("[model]\n", "[run]\nsave_every = 1\n[model]\nstored = \"bf16\"\n")
        .replace("[sft]\nepochs = 2\n", "[sft]\nepochs = 4\n")
        .replace(
            "[tapo]\nepochs = 1\nprompts_per_step = 2\nchunk = 2\nmax_tries = 1\nbatch = 8\n",
            "[tapo]\nepochs = 3\nprompts_per_step = 2\nchunk = 3\nwhole_chunks = true\nmax_tries = 2\nbatch = 4\neval_every = 2\nloss = { kl_ref = 0.1 }\n",
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

/// Starts the command in the folder.
pub fn spawn(place: &Place, args: &[String]) -> Child {
    start(Command::new(env!("CARGO_BIN_EXE_fieldmark")), place, args)
}

/// Starts a command, with further arguments, in the folder.
pub fn start(mut command: Command, place: &Place, args: &[String]) -> Child {
    command.args(args).current_dir(place.path("")).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A stage into a folder.
pub fn args<'a>(stage: &'a str, output: &'a str) -> Vec<String> {
    let output = format!("output={output}");
    [stage, "-c", "recipe.toml", "--set", &output].iter().map(|text| (*text).to_owned()).collect()
}

/// The same, going on.
pub fn resume(stage: &str, output: &str) -> Vec<String> {
    [args(stage, output), vec!["--resume".into()]].concat()
}

/// Runs it.
pub fn run(place: &Place, args: &[String]) -> Output {
    place.run(args)
}

/// Runs it and expects success.
pub fn succeed(place: &Place, args: &[String]) -> Output {
    let output = run(place, args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
    output
}

/// What it said.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Leaves a finished run as if it had been killed two checkpoints before its end.
pub fn kill(place: &Place, output: &str) {
    fs::remove_dir_all(place.path(output).join("checkpoint")).unwrap();
    let folder = format!("{output}/checkpoints");
    for mark in entries(place, &folder).iter().rev().take(2) {
        fs::remove_dir_all(place.path(&folder).join(mark)).unwrap();
    }
}

/// Names in a folder; none where there is no folder.
pub fn entries(place: &Place, folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(place.path(folder))
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect());
    entries.unwrap_or_default()
}

/// Everything that does not depend on the clock.
pub fn same(place: &Place, stage: &str, found: &str, expected: &str) {
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
