//! Samples of the official Fine-R1 files load as they are; what they hold is known from the originals.

use std::path::{Path, PathBuf};

use fieldmark_data::{DataKind, EvalSetName, Split, TurnRole, check_file, read_conversations, read_eval_rows};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/official").join(name)
}

#[test]
fn stage_one_conversations_load() {
    let examples = read_conversations(&fixture("stage1_first12.json"), None).unwrap();
    assert_eq!(examples.len(), 12);
    for (index, example) in examples.iter().enumerate() {
        assert_eq!(example.row, index + 1);
        let system = example.system.as_deref().unwrap();
        assert!(system.starts_with("A conversation between User and Assistant."));
        let roles: Vec<TurnRole> = example.turns.iter().map(|turn| turn.role).collect();
        assert_eq!(roles, [TurnRole::User, TurnRole::Assistant]);
        assert!(example.turns[0].content.starts_with("<image>"));
        assert!(example.response().starts_with("<think>"));
        assert!(example.response().ends_with("</answer>"));
        let prefix = Path::new("fgvc-aircraft-2013b-train/images");
        assert!(example.images.len() == 1 && example.images[0].path().unwrap().starts_with(prefix));
    }
    let report = check_file(&fixture("stage1_first12.json"), None).unwrap();
    assert_eq!((report.kind, report.good_rows), (DataKind::Conversations, 12));
    assert_eq!((report.classes.len(), report.images), (12, 12));
    assert!(report.is_clean(), "{report}");
}

#[test]
fn all_twelve_evaluation_files_load() {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(fixture("eval")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut rows = 0;
    let mut names = Vec::new();
    for file in &files {
        let set = read_eval_rows(file, EvalSetName::from_file_name(file).unwrap()).unwrap();
        rows += set.rows.len();
        for row in &set.rows {
            assert_eq!((row.options.len(), &row.options[0]), (4, &row.ground_truth));
            assert_eq!(row.super_category, set.name.dataset);
            // The released rule calls every bird, dog and pet an "object".
            let known = ["aircraft", "car", "flower"].contains(&set.name.dataset.as_str());
            assert_eq!(row.released_super_category() == set.name.dataset, known);
        }
        names.push((set.name.dataset, set.name.split));
    }
    let expected: Vec<_> = ["aircraft", "bird", "car", "dog", "flower", "pet"]
        .iter()
        .flat_map(|name| Split::ALL.map(|split| ((*name).to_owned(), split)))
        .collect();
    assert_eq!(names, expected);
    assert_eq!(rows, 12 * 3 + 3);
    let packed = check_file(&fixture("eval/dog_seen.jsonl.gz"), None).unwrap();
    assert_eq!((packed.good_rows, packed.problems.len()), (4, 0));
    assert!(packed.to_string().contains("in 1 rows another option contains the truth"));
}
