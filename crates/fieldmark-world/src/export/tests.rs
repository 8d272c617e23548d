use std::{collections::BTreeSet, fs};

use super::*;
use crate::species::WorldConfig;

fn rows(folder: &Path, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn written(config: &ExportConfig) -> (World, tempfile::TempDir, Exported) {
    let world = World::new(WorldConfig { seed: 2, species: 36 }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let exported = export(&world, config, folder.path(), |_, _| ControlFlow::Continue(())).unwrap();
    (world, folder, exported)
}

const SMALL: ExportConfig = ExportConfig { seed: 1, train: 2, test: 1, side: 28, robustness: false };

#[test]
fn the_files_name_pictures_that_are_there_and_keep_the_groups_apart() {
    let (world, folder, exported) = written(&SMALL);
    let at = folder.path();
    let mut named = BTreeSet::new();
    let mut name = |value: &Value| {
        assert!(
            at.join(value.as_str().unwrap()).is_file() && {
                named.insert(value.as_str().unwrap().to_owned());
                true
            },
            "{value}"
        )
    };
    let group =
        |name: &Value| world.species().iter().find(|species| species.name == name.as_str().unwrap()).unwrap().group;
    for file in ["cot.jsonl", "direct.jsonl"] {
        let rows = rows(at, file);
        assert_eq!(rows.len(), 18);
        rows.iter().for_each(|row| name(&row["images"][0]));
    }
    let triplets = rows(at, "tapo.jsonl");
    assert_eq!(triplets.len(), 36);
    for row in &triplets {
        ["anchor", "positive", "negative"].iter().for_each(|role| name(&row[role]));
        assert_eq!(group(&row["answer"]), Group::Seen);
        assert!(
            row["anchor"] != row["positive"]
                && row["anchor"].as_str().unwrap().contains(row["answer"].as_str().unwrap())
        );
        assert!(!row["negative"].as_str().unwrap().contains(row["answer"].as_str().unwrap()));
    }
    let validation = rows(at, "validation.jsonl");
    assert!(validation.iter().all(|row| group(&row["answer"]) != Group::Unseen));
    for (place, unseen) in [("eval", Group::Unseen), ("development", Group::Development)] {
        for category in Category::ALL {
            for (split, expected) in [("seen", Group::Seen), ("unseen", unseen)] {
                let rows = rows(at, &format!("{place}/{}_{split}.jsonl", category.word()));
                assert!(!rows.is_empty());
                for row in rows {
                    name(&row["image_path"]);
                    assert_eq!(group(&row["ground_truth"]), expected);
                    let options = row["options"].as_array().unwrap();
                    assert!(
                        options.contains(&row["ground_truth"]) && options.len() == OPTIONS.min(2 * options.len() / 2)
                    );
                }
            }
        }
    }
    assert_eq!(named.len(), exported.pictures);
    assert!(at.join("sheet.png").is_file());
}

#[test]
fn a_reasoned_row_mentions_two_of_the_marks() {
    let (world, folder, _) = written(&SMALL);
    for row in rows(folder.path(), "cot.jsonl") {
        let response = row["messages"][1]["content"].as_str().unwrap();
        let analysis = response.lines().next().unwrap().strip_prefix("<think>analysis: ").unwrap();
        let species = world.species().iter().find(|species| response.ends_with(&answer(&species.name))).unwrap();
        let all = species.marks.all_words(species.category);
        assert_eq!(analysis.split(", ").filter(|mark| all.contains(mark)).count(), 2, "{analysis}");
    }
}

#[test]
fn robustness_has_every_test_picture_at_every_level() {
    let (_, folder, plain) = written(&SMALL);
    let (_, robust, all) = written(&ExportConfig { robustness: true, ..SMALL });
    let tests = 30;
    assert_eq!(all.pictures - plain.pictures, tests * Degradation::ALL.len() * usize::from(LEVELS));
    let one = |folder: &Path, name: &str| rows(folder, name)[0]["image_path"].as_str().unwrap().to_owned();
    let clear = fs::read(folder.path().join(one(folder.path(), "eval/bird_seen.jsonl"))).unwrap();
    let dark = fs::read(robust.path().join(one(robust.path(), "robustness/darkness-5/bird_seen.jsonl"))).unwrap();
    assert_ne!(clear, dark);
    assert_eq!(clear, fs::read(robust.path().join(one(robust.path(), "eval/bird_seen.jsonl"))).unwrap());
}

#[test]
fn it_stops_when_it_is_told_and_refuses_settings_without_meaning() {
    let world = World::new(WorldConfig { seed: 2, species: 200 }).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let exported = export(&world, &SMALL, folder.path(), |_, _| ControlFlow::Break(())).unwrap();
    assert!(exported.stopped && rows(folder.path(), "species.jsonl").len() == AT_A_TIME);
    for (config, key) in [
        (ExportConfig { train: 1, ..SMALL }, "train"),
        (ExportConfig { test: 0, ..SMALL }, "images"),
        (ExportConfig { side: 5, ..SMALL }, "side"),
    ] {
        let error = export(&world, &config, folder.path(), |_, _| ControlFlow::Continue(())).unwrap_err();
        assert!(error.to_string().starts_with(key), "{error}");
    }
}
