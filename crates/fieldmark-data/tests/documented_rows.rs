//! The rows that the README and the docs of the readers show are rows that are read.

use std::path::Path;

use fieldmark_data::{DataKind, check_file};

/// The fenced blocks of a language, with one line for each row of JSON.
fn blocks(file: &str, language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let lines: Vec<&str> = text.lines().map(|line| line.strip_prefix("//! ").unwrap_or(line)).collect();
    let joint = if language == "json" { " " } else { "\n" };
    let fence = format!("```{language}");
    lines
        .split(|line| *line == fence)
        .skip(1)
        .map(|rest| rest.iter().copied().take_while(|line| *line != "```").collect::<Vec<_>>().join(joint))
        .collect()
}

#[test]
fn documented_rows_are_read() {
    let readers = [
        ("src/format/sharegpt.rs", "json", DataKind::ShareGpt),
        ("src/format/tapo_rows.rs", "json", DataKind::TapoRows),
        ("src/format/eval_rows.rs", "json", DataKind::EvalRows),
        ("src/format/labels.rs", "csv", DataKind::Labels),
    ];
    let mut rows: Vec<(String, DataKind)> = Vec::new();
    let mut readme = [blocks("README.md", "json"), blocks("README.md", "csv")].concat().into_iter();
    for (file, language, kind) in readers {
        rows.extend(blocks(file, language).into_iter().map(|row| (row, kind)));
        rows.push((readme.next().unwrap(), kind));
    }
    assert_eq!((rows.len(), readme.next()), (8, None));
    let folder = tempfile::tempdir().unwrap();
    for (row, kind) in rows {
        let file = folder.path().join("fruit_seen.jsonl");
        std::fs::write(&file, &row).unwrap();
        let report = check_file(&file, None).unwrap();
        assert_eq!((report.kind, report.good_rows, report.rows), (kind, 1, 1), "{row}\n{report}");
    }
}
