//! `fieldmark world`, `base` and the demo in a world: what is written, and what is refused before anything is.

mod support;

use std::process::Command;

use support::{Place, refusal::mentions};

#[test]
fn a_written_world_is_data_that_every_reader_accepts() {
    let place = Place::new();
    let said = place.succeed(&["world", "--out", "world", "--species", "36", "--images", "1", "--side", "28"]);
    assert!(said.contains("world/sheet.png") && said.contains("world/recipes/sft.toml"), "{said}");
    for file in ["cot.jsonl", "direct.jsonl", "tapo.jsonl", "eval/bird_seen.jsonl", "development/moth_unseen.jsonl"] {
        let found = place.succeed(&["data", "check", &format!("world/{file}"), "--images", "world"]);
        assert!(found.lines().any(|line| line.split_whitespace().eq(["problems", "0"])), "{file}: {found}");
    }
    for (recipe, key) in [("sft", "epochs"), ("tapo", "prompts_per_step"), ("eval", "max_new_tokens")] {
        let shown = place.succeed(&["show", "-c", &format!("world/recipes/{recipe}.toml")]);
        assert!(shown.lines().any(|line| line.starts_with(key) && line.contains("recipe")), "{shown}");
    }
    place.refuse(&["world", "--out", "world"]).at_once().names("world").names("empty");
}

#[test]
fn what_is_no_world_is_refused_before_anything_is_written() {
    let place = Place::new();
    let before = place.listing();
    for (arguments, named) in [
        (&["world", "--out", "new", "--species", "35"][..], "35"),
        (&["world", "--out", "new", "--species", "20000"], "15552"),
        (&["world", "--out", "new", "--images", "0"], "images"),
        (&["world", "--out", "new", "--side", "5"], "side"),
        (&["base", "--out", "new", "--species", "7"], "species"),
        (&["base", "--out", "model"], "--overwrite"),
        (&["demo", "--out", "new", "--base", "model"], "world.toml"),
        (&["demo", "--out", "new", "--base", "nowhere"], "nowhere"),
    ] {
        place.refuse(arguments).names(named);
        assert_eq!(place.listing(), before, "{arguments:?}");
    }
    // Options of the one demo do not go with the other.
    for arguments in [
        &["demo", "--seeds", "3"][..],
        &["demo", "--photos", "--full"],
        &["demo", "--sft-epochs", "3"],
        &["demo", "--base", "model", "--photos", "."],
    ] {
        assert_eq!(place.run(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(place.listing(), before);
    let help = place.succeed(&["demo", "--help"]);
    assert!(mentions(&help, "--full") && mentions(&help, "fieldmark base"), "{help}");
}

#[test]
fn outside_of_the_repository_the_demo_says_what_it_needs() {
    let place = Place::new();
    let before = place.listing();
    for (arguments, named) in [(&["demo"][..], "--base runs/base/model"), (&["demo", "--photos"], "--photos DIR")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fieldmark"));
        let output =
            command.args(arguments).current_dir(place.path("")).env_remove("CARGO_MANIFEST_DIR").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("assets/") && said.contains(named), "{said}");
    }
    assert_eq!(place.listing(), before);
}
