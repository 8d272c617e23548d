//! The demo from end to end, in small: every stage runs, leaves whole files, and says what it misses.

use std::path::Path;

use burn::tensor::Device;
use fieldmark::{
    demo::{DemoOptions, run},
    eval::{World, read_predictions},
    model::{LoadOptions, Qwen25Vl},
    processor::{DecodeOptions, Processor},
    run::{RunEvent, Silent},
    train::trainer::Interrupt,
};

/// Twelve classes of the demo's photographs with three training photographs and one test photograph each.
fn small_photographs(folder: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/produce");
    let table = std::fs::read_to_string(source.join("labels.csv")).unwrap();
    let mut lines = table.lines();
    let header = lines.next().unwrap();
    let mut classes: Vec<&str> = Vec::new();
    let mut rows = vec![header.to_owned()];
    let mut taken = std::collections::BTreeMap::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        if !classes.contains(&cells[1]) {
            classes.push(cells[1]);
        }
        let count: &mut usize = taken.entry((cells[1], cells[4])).or_default();
        *count += 1;
        let most = if cells[4] == "train" { 3 } else { 1 };
        let chosen = classes.iter().take(12).any(|class| *class == cells[1]);
        if chosen && *count <= most {
            std::fs::create_dir_all(folder.join(cells[0]).parent().unwrap()).unwrap();
            std::fs::copy(source.join(cells[0]), folder.join(cells[0])).unwrap();
            rows.push(line.to_owned());
        }
    }
    std::fs::write(folder.join("labels.csv"), rows.join("\n") + "\n").unwrap();
}

fn options(photos: &Path, out: &Path) -> DemoOptions {
    DemoOptions {
        decode: DecodeOptions::default(),
        photos: photos.into(),
        out: out.into(),
        seed: 3,
        sft_epochs: 2,
        tapo_steps: 1,
        ablation: false,
        judge: true,
        resume: false,
        overwrite: false,
        interrupt: Interrupt::new(),
        device: Device::flex(),
        device_name: "flex".into(),
    }
}

#[test]
fn every_stage_leaves_whole_files_and_the_same_seed_the_same_ones() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    small_photographs(&photos);
    let out = folder.path().join("out");
    let outcome = run(&options(&photos, &out), &mut Silent).unwrap();
    assert_eq!(outcome.missed.len(), 2, "two epochs teach nothing: {}", outcome.report);

    for stage in ["base", "sft", "tapo"] {
        let predictions = read_predictions(&out.join(stage).join("predictions.jsonl")).unwrap().rows;
        let closed = predictions.iter().filter(|p| p.question.world == World::Closed);
        assert_eq!((predictions.len(), closed.count()), (24, 12), "{stage}");
    }
    for stage in ["sft", "tapo"] {
        let checkpoint = out.join(stage).join("checkpoint");
        Processor::from_dir(&checkpoint).unwrap();
        Qwen25Vl::from_pretrained(&checkpoint, LoadOptions::default(), &Device::flex()).unwrap();
        for name in ["metrics.jsonl", "timings.jsonl"] {
            assert!(out.join(stage).join(name).is_file(), "{stage}/{name}");
        }
    }
    let rollouts = std::fs::read_to_string(out.join("tapo/rollouts.jsonl")).unwrap();
    assert!(rollouts.lines().count() >= 8, "{rollouts}");
    assert!(std::fs::read_to_string(out.join("report.md")).unwrap().contains("SFT + TAPO"));

    // Stopped in its first stage, and continued: the same weights at the end.
    let again = folder.path().join("again");
    let interrupt = Interrupt::new();
    let first = DemoOptions { interrupt: interrupt.clone(), ..options(&photos, &again) };
    let mut stop = |event: RunEvent<'_>| {
        if let RunEvent::Stepped(_) = event {
            interrupt.ask();
        }
        Ok(())
    };
    assert!(run(&first, &mut stop).unwrap().stopped);
    assert!(!again.join("sft/checkpoint").exists() && again.join("sft/checkpoints/step-000001").is_dir());
    let outcome = run(&DemoOptions { resume: true, ..options(&photos, &again) }, &mut Silent).unwrap();
    assert!(!outcome.stopped && outcome.report.contains("SFT + TAPO"));
    // A finished demo is not replaced, and not resumed as another one.
    let files = |out: &Path| std::fs::read(out.join("report.md")).unwrap();
    let before = files(&again);
    for (wrong, named) in [
        (options(&photos, &again), "--overwrite"),
        (DemoOptions { resume: true, seed: 4, ..options(&photos, &again) }, "--seed 3"),
        (DemoOptions { overwrite: true, ..options(&out.join("sft"), &out) }, "--photos"),
    ] {
        let error = run(&wrong, &mut Silent).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
    assert_eq!(files(&again), before);
    let weights =
        |out: &Path, stage: &str| std::fs::read(out.join(stage).join("checkpoint/model.safetensors")).unwrap();
    for stage in ["sft", "tapo"] {
        assert!(weights(&out, stage) == weights(&again, stage), "{stage}: the same seed gives other weights");
    }
}
