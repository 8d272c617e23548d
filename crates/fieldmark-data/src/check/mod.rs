//! `fieldmark data check`: reads any data file and reports its rows, images, classes, and every problem with file and
//! row. The content decides the kind of a file: the fields of the first row, or the header of a label table.

mod report;
mod tally;

use std::path::Path;

use serde_json::Value;

use crate::error::{DataError, RowProblem};
use crate::format::reader::{ReadLimits, Records, parse_records, read_text};
use crate::images::ImageRoots;

pub use report::{DataKind, DataReport};
pub use tally::ImageCheck;
use tally::{Tally, header_problem};

/// Checks a data file: ShareGPT, evaluation or TAPO rows (JSON or JSONL, also gzipped), or a label table.
///
/// Images are looked for in `images`, otherwise in the file's folder. If none is found, the images are assumed to be
/// elsewhere: a note says so, and they are not listed as missing.
///
/// Of each image only the header is read; see [`check_file_with`].
///
/// # Errors
/// Returns an error if the file cannot be read or is of no known kind. Bad rows are in [`DataReport::problems`].
pub fn check_file(path: &Path, images: Option<&ImageRoots>) -> Result<DataReport, DataError> {
    check_file_with(path, images, &|file, _, _| header_problem(file))
}

/// Like [`check_file`], but `image` says what is wrong with an image file. It is called on all cores.
///
/// # Errors
/// Returns the errors of [`check_file`].
pub fn check_file_with(
    path: &Path,
    images: Option<&ImageRoots>,
    image: &ImageCheck<'_>,
) -> Result<DataReport, DataError> {
    let roots = images.cloned().unwrap_or_else(|| ImageRoots::beside(path));
    let (text, gzipped) = read_text(path, ReadLimits::default())?;
    if is_table(&text) {
        let tally = Tally::new(path, DataKind::Labels).labels(&text)?;
        return Ok(tally.finish(&roots, image));
    }
    let records = parse_records(path, &text, gzipped)?;
    let Some(kind) = kind_of_rows(&records) else {
        return Err(DataError::file(
            path,
            match first_fields(&records) {
                Some(fields) => RowProblem::UnknownKind(fields).to_string(),
                None => "no rows; give a file with rows".into(),
            },
        ));
    };
    Ok(Tally::new(path, kind).records(records).finish(&roots, image))
}

/// Returns true if the first line has the columns `path` and `class`.
fn is_table(text: &str) -> bool {
    let header = text.trim_start_matches('\u{feff}').lines().next();
    let header: Vec<&str> = header.unwrap_or("").split(',').map(str::trim).collect();
    header.contains(&"path") && header.contains(&"class")
}

fn objects(records: &Records) -> impl Iterator<Item = &serde_json::Map<String, Value>> {
    let good = records.rows.iter().flatten();
    good.filter_map(|record| record.value.as_object())
}

fn kind_of_rows(records: &Records) -> Option<DataKind> {
    objects(records).find_map(|row| {
        let has = |name: &str| row.contains_key(name);
        if has("messages") || has("conversations") {
            Some(DataKind::ShareGpt)
        } else if has("ground_truth") || has("image_path") {
            Some(DataKind::EvalRows)
        } else if has("problem") {
            Some(DataKind::TapoRows)
        } else {
            None
        }
    })
}

fn first_fields(records: &Records) -> Option<String> {
    if records.rows.is_empty() {
        return None;
    }
    let names = objects(records).next();
    let names = names.map(|row| row.keys().cloned().collect::<Vec<_>>().join(", "));
    Some(names.filter(|names| !names.is_empty()).unwrap_or("(none)".into()))
}

#[cfg(test)]
mod tests {
    use image::RgbImage;

    use std::collections::BTreeMap;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        RgbImage::new(3, 2).save(dir.path().join("a.png")).unwrap();
        std::fs::write(dir.path().join("text.png"), "no image").unwrap();
        dir
    }

    fn check(dir: &tempfile::TempDir, name: &str) -> DataReport {
        check_file(&dir.path().join(name), None).unwrap()
    }

    #[test]
    fn every_bad_row_and_image_is_listed_with_its_row() {
        let rows = r#"{"image_path":"a.png","question":"?","options":["Collie","Border Collie"],"ground_truth":"Collie"}
{"image_path":"b.png","question":"?","options":["Lime","Lemon"],"ground_truth":"Lime"}
{"image_path":"text.png","question":"?","options":["Lime","Lemon"],"ground_truth":"Lime"}
{"question":"?","options":["Lime","Lemon"],"ground_truth":"Lime"}
{"image_path":"a.png","question":"?","options":["Lime","Lemon"],"ground_truth":5}
{"image_path":
"#;
        let dir = folder(&[("fruit_seen.jsonl", rows)]);
        let report = check(&dir, "fruit_seen.jsonl");
        assert_eq!((report.kind, report.rows, report.good_rows), (DataKind::EvalRows, 6, 3));
        assert_eq!((report.images, report.images_found, report.images_missing), (3, 1, 1));
        assert_eq!(report.classes, BTreeMap::from([("Collie".into(), 1), ("Lime".into(), 2)]));
        let text = report.to_string();
        let file = dir.path().join("fruit_seen.jsonl");
        for (row, says) in
            [(4, "\"image_path\""), (5, "\"ground_truth\""), (6, "not JSON"), (3, "text.png"), (2, "b.png")]
        {
            let start = format!("{}:{row}: ", file.display());
            let line = text.lines().find(|line| line.starts_with(&start));
            assert!(line.is_some_and(|line| line.contains(says)), "{row}: {text}");
        }
        assert!(text.contains("problems  5\n"), "{text}");
        assert_eq!(report.notes.len(), 2, "{text}");
        assert!(report.notes[0].contains("all 3 rows") && report.notes[1].contains("1 rows"), "{text}");
        assert!(!report.is_clean());
    }

    #[test]
    fn kinds_are_told_apart_by_content() {
        let dir = folder(&[
            (
                "chat",
                r#"[{"messages":[{"role":"user","content":"<image>?"},{"role":"assistant","content":"<think>x</think><answer> Lime </answer>"}],"images":["a.png"]}]"#,
            ),
            (
                "tapo",
                r#"{"problem":"<image>?","answer":"Lime","images":["a.png"],"image_noisy":["a.png"],"image_aug":["a.png"]}"#,
            ),
            ("table", "path,class,super_category,split\na.png,Lime,Citrus,test\n,Lime,Citrus,test\n"),
            ("other", "{\"x\": 1, \"y\": 2}\n"),
            ("empty", ""),
        ]);
        for (name, kind, problems) in
            [("chat", DataKind::ShareGpt, 0), ("tapo", DataKind::TapoRows, 0), ("table", DataKind::Labels, 1)]
        {
            let report = check(&dir, name);
            assert_eq!((report.kind, report.images_found, report.problems.len()), (kind, 1, problems));
            assert_eq!(report.classes, BTreeMap::from([("Lime".into(), 1)]));
        }
        let other = check_file(&dir.path().join("other"), None).unwrap_err().to_string();
        assert!(other.contains("other: ") && other.contains("x, y"), "{other}");
        let empty = check_file(&dir.path().join("empty"), None);
        assert!(matches!(&empty, Err(DataError::File { file, .. }) if file.ends_with("empty")), "{empty:?}");
    }

    #[test]
    fn the_caller_says_what_is_wrong_with_an_image() {
        let row =
            |image: &str| format!("{{\"image_path\":\"{image}\",\"question\":\"?\",\"ground_truth\":\"Lime\"}}\n");
        let dir = folder(&[("fruit_seen.jsonl", &[row("a.png"), row("b.png"), row("text.png")].concat())]);
        let seen = std::sync::Mutex::new(Vec::new());
        let found = check_file_with(&dir.path().join("fruit_seen.jsonl"), None, &|file, begun, total| {
            seen.lock().unwrap().push((begun, total));
            file.ends_with("a.png").then(|| "too dark".into())
        });
        let report = found.unwrap();
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, [(1, 2), (2, 2)]);
        assert_eq!((report.images_found, report.images_missing), (1, 1));
        let text = report.to_string();
        assert!(text.contains("fruit_seen.jsonl:1: ") && text.contains("too dark"), "{text}");
    }

    #[test]
    fn a_file_without_its_images_gets_one_note() {
        let rows = "{\"image_path\":\"x/a.jpg\",\"question\":\"?\",\"ground_truth\":\"Lime\"}\n";
        let dir = folder(&[("fruit_seen.jsonl", rows)]);
        let report = check(&dir, "fruit_seen.jsonl");
        assert!(report.is_clean());
        assert_eq!((report.images, report.images_missing, report.notes.len()), (1, 1, 1));
    }
}
