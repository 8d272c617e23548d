//! The base model of a world and a study, in small: whole files, the same bytes from the same seed, and after a stop.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fieldmark::{
    Checkpoint,
    field_guide::{BaseOptions, Reuse, StudyOptions, WORLD, WorldOptions, base, study, world},
    run::{RunEvent, Silent},
    train::trainer::Interrupt,
    world::{ExportConfig, Lessons, WorldConfig},
};

const SMALL: WorldConfig = WorldConfig { seed: 5, species: 36 };

fn base_options(out: &Path) -> BaseOptions {
    BaseOptions {
        world: SMALL,
        lessons: Lessons { described: 40, captions: 1, thoughts: 1, riddles: 1, descriptions: 1 },
        seed: 2,
        out: out.into(),
        reuse: Reuse::default(),
        device: Device::flex(),
        interrupt: Interrupt::new(),
    }
}

/// Asks to stop when `count` steps are made.
fn stop_after(interrupt: &Interrupt, count: usize) -> impl FnMut(RunEvent<'_>) -> Result<(), fieldmark::RunError> {
    let (interrupt, mut steps) = (interrupt.clone(), 0);
    move |event| {
        if let RunEvent::Stepped(_) = event {
            steps += 1;
            if steps == count {
                interrupt.ask();
            }
        }
        Ok(())
    }
}

fn bytes(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn a_base_model_is_whole_and_the_same_after_a_stop_and_a_study_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let model = base(&base_options(&at("base")), &mut Silent).unwrap().unwrap();
    assert!(Checkpoint::at(&model).unwrap().load(&Device::flex()).is_ok());
    assert_eq!(String::from_utf8(bytes(&model, WORLD)).unwrap(), "seed = 5\nspecies = 36\n");
    // 16 bits: two bytes a number.
    assert!(bytes(&model, "model.safetensors").len() < 13_000_000);

    let interrupt = Interrupt::new();
    let options = BaseOptions { interrupt: interrupt.clone(), ..base_options(&at("again")) };
    assert_eq!(base(&options, &mut stop_after(&interrupt, 2)).unwrap(), None);
    let refused = base(&base_options(&at("again")), &mut Silent).unwrap_err().to_string();
    assert!(refused.contains("--resume"), "{refused}");
    let resumed = || BaseOptions { reuse: Reuse { resume: true, overwrite: false }, ..base_options(&at("again")) };
    let other = base(&BaseOptions { seed: 3, ..resumed() }, &mut Silent).unwrap_err().to_string();
    assert!(other.contains("seed = 2"), "{other}");
    let again = base(&resumed(), &mut Silent).unwrap().unwrap();
    assert!(bytes(&model, "model.safetensors") == bytes(&again, "model.safetensors"));

    studies(&model, &at);
}

/// Two arms with one seed, once without and once with a stop.
fn studies(model: &Path, at: &dyn Fn(&str) -> PathBuf) {
    let options = |out: &str| StudyOptions {
        base: model.into(),
        out: at(out),
        reuse: Reuse::default(),
        seed: 3,
        seeds: 1,
        arms: vec!["base".into(), "direct".into()],
        pictures: 1,
        tapo_epochs: 1,
        device: Some("flex".into()),
        interrupt: Interrupt::new(),
    };
    let whole = study(&options("study"), &mut Silent).unwrap();
    assert!(!whole.stopped && whole.table.contains("direct-answer SFT"), "{}", whole.table);
    let report = bytes(&at("study"), "report.md");
    assert!(String::from_utf8_lossy(&report).contains("direct-answer SFT gains on seen species"));

    let interrupt = Interrupt::new();
    let first = StudyOptions { interrupt: interrupt.clone(), ..options("stopped") };
    assert!(study(&first, &mut stop_after(&interrupt, 1)).unwrap().stopped);
    let resume = Reuse { resume: true, overwrite: false };
    let second = study(&StudyOptions { reuse: resume, ..options("stopped") }, &mut Silent).unwrap();
    assert_eq!(second.table, whole.table);
    assert!(bytes(&at("stopped"), "report.md") == report);

    for (wrong, named) in [
        (options("study"), "--overwrite"),
        (StudyOptions { reuse: resume, pictures: 2, ..options("study") }, "pictures = 1"),
        (StudyOptions { base: at("study"), ..options("other") }, "fieldmark base"),
        (StudyOptions { arms: vec!["dappo".into()], ..options("other") }, "dapo"),
    ] {
        let error = study(&wrong, &mut Silent).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    assert!(bytes(&at("study"), "report.md") == report);

    // What a study wrote is replaced, and nothing else.
    std::fs::write(at("stopped").join("notes.txt"), "mine").unwrap();
    let reuse = Reuse { resume: false, overwrite: true };
    let new = StudyOptions { reuse, arms: vec!["base".into()], ..options("stopped") };
    assert!(!study(&new, &mut Silent).unwrap().table.contains("direct"));
    assert!(at("stopped/notes.txt").is_file() && !at("stopped/seed-3/direct").exists());
    let inside = at("stopped/seed-3/model");
    std::fs::create_dir(&inside).unwrap();
    for file in std::fs::read_dir(model).unwrap().map(|file| file.unwrap().path()) {
        std::fs::copy(&file, inside.join(file.file_name().unwrap())).unwrap();
    }
    let error = study(&StudyOptions { base: inside.clone(), ..new }, &mut Silent).unwrap_err().to_string();
    assert!(error.contains("--base") && inside.join("model.safetensors").is_file(), "{error}");
}

#[test]
fn a_world_appears_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("world");
    let options = |out: &Path| WorldOptions {
        world: SMALL,
        export: ExportConfig { test: 1, side: 28, ..ExportConfig::default() },
        out: out.into(),
        interrupt: Interrupt::new(),
    };
    assert_eq!(world(&options(&out), &mut Silent).unwrap().unwrap(), out);
    for name in [WORLD, "recipes/tapo.toml", "tapo.jsonl", "sheet.png", "eval/fish_unseen.jsonl"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let refused = world(&options(&out), &mut Silent).unwrap_err().to_string();
    assert!(refused.contains("not an empty folder"), "{refused}");
    let stopped = WorldOptions { interrupt: Interrupt::new(), ..options(&folder.path().join("stopped")) };
    stopped.interrupt.ask();
    assert_eq!(world(&stopped, &mut Silent).unwrap(), None);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
