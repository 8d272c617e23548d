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

/// Asserts that each text is a file with one good row.
fn read(rows: impl IntoIterator<Item = (String, DataKind)>) {
    let folder = tempfile::tempdir().unwrap();
    for (row, kind) in rows {
        let file = folder.path().join("fruit_seen.jsonl");
        std::fs::write(&file, &row).unwrap();
        let report = check_file(&file, None).unwrap();
        assert_eq!((report.kind, report.good_rows, report.rows), (kind, 1, 1), "{row}\n{report}");
    }
}

#[test]
fn rows_in_the_docs_of_the_readers_are_read() {
    for (file, language, kind, count) in [
        ("src/format/conversations/sharegpt.rs", "json", DataKind::Conversations, 3),
        ("src/format/conversations/alpaca.rs", "json", DataKind::Conversations, 1),
        ("src/format/tapo_rows.rs", "json", DataKind::TapoRows, 1),
        ("src/format/eval_rows.rs", "json", DataKind::EvalRows, 1),
        ("src/format/labels.rs", "csv", DataKind::Labels, 1),
    ] {
        let rows = blocks(file, language);
        assert_eq!(rows.len(), count, "{file}");
        read(rows.into_iter().map(|row| (row, kind)));
    }
}

#[test]
fn rows_in_the_readme_are_read() {
    let kinds = [DataKind::Conversations, DataKind::TapoRows, DataKind::EvalRows, DataKind::Labels];
    let rows = [blocks("README.md", "json"), blocks("README.md", "csv")].concat();
    assert_eq!(rows.len(), kinds.len());
    read(rows.into_iter().zip(kinds));
}

#[test]
fn rows_in_the_page_about_data_are_read() {
    let rows = blocks("../../docs/data.md", "json");
    assert!(rows.len() == 7, "{rows:?}");
    let kind = |row: &str| match row {
        _ if row.contains("\"problem\"") => DataKind::TapoRows,
        _ if row.contains("\"ground_truth\"") => DataKind::EvalRows,
        _ => DataKind::Conversations,
    };
    read(rows.iter().map(|row| (row.clone(), kind(row))));
}
