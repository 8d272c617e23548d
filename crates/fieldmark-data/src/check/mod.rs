//! `fieldmark data check`: reads any data file and reports its rows, images, classes, and every problem with file and
//! row. The content decides the kind of a file: the fields of the first row, or the header of a label table.

mod report;
mod tally;

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{DataError, RowProblem};
use crate::format::columns::object;
use crate::format::conversations::SftExample;
use crate::format::labels::is_table;
use crate::format::reader::{ReadLimits, Records, parse_records, read_text};
use crate::images::ImageRoots;

pub use report::{DataKind, DataReport};
pub use tally::ImageCheck;
use tally::{Tally, unreadable};

/// Checks a data file: conversations, evaluation or TAPO rows (JSON or JSONL, also gzipped), or a label table.
///
/// Images are looked for in `images`; each one that is missing is a problem. Without `images` they are looked for in the
/// file's folder. If none is found there, they are assumed to be elsewhere: a note says so. Only the photographs of a label
/// table must be there.
///
/// Of each image only the header is read; see [`check_file_with`].
///
/// # Errors
/// Returns an error if the file cannot be read or is of no known kind. Bad rows are in [`DataReport::problems`].
pub fn check_file(path: &Path, images: Option<&ImageRoots>) -> Result<DataReport, DataError> {
    check_file_with(path, images, &|image, _, _| unreadable(image))
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
    if is_table(&text) || (has_name_of_a_table(path) && !text.trim_start().starts_with(['[', '{'])) {
        let tally = Tally::new(path, DataKind::Labels).labels(&text)?;
        // A table says where its photographs are, so that none may be missing.
        return Ok(tally.finish(&roots, true, image));
    }
    let records = parse_records(path, &text, gzipped)?;
    drop(text);
    if let Some(error) = without_objects(path, &records) {
        return Err(error);
    }
    let Some(kind) = kind_of_rows(&records) else {
        return Err(DataError::file(
            path,
            match first_fields(&records) {
                Some(fields) => RowProblem::UnknownKind(fields).to_string(),
                None => "no rows; give a file with rows".into(),
            },
        ));
    };
    Ok(Tally::new(path, kind).records(records).finish(&roots, images.is_some(), image))
}

/// The error of a file with rows of which none is a JSON object: that of its first row.
fn without_objects(path: &Path, records: &Records) -> Option<DataError> {
    if objects(records).next().is_some() {
        return None;
    }
    let (row, first) = match records.rows.first()? {
        Ok(record) => (record.row, object(&record.value).err()?),
        Err(DataError::Row { row, problem, .. }) => (*row, problem.clone()),
        Err(_) => return None,
    };
    let problem = RowProblem::NoObjects { first: Box::new(first), rows: records.rows.len() };
    Some(DataError::row(path, row, problem))
}

/// Whether a file is called as tables are, so that an error speaks of columns.
fn has_name_of_a_table(path: &Path) -> bool {
    let name = path.to_string_lossy().to_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    [".csv", ".tsv"].iter().any(|end| name.ends_with(end))
}

fn objects(records: &Records) -> impl Iterator<Item = &Map<String, Value>> {
    let good = records.rows.iter().flatten();
    good.filter_map(|record| record.value.as_object())
}

fn kind_of_rows(records: &Records) -> Option<DataKind> {
    objects(records).find_map(|row| {
        let has = |name: &str| row.contains_key(name);
        if SftExample::is_conversation(row) {
            Some(DataKind::Conversations)
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
                r#"{"problem":"<image>?","answer":"Lime","images":["a.png"],"image_noisy":["a.png"],"image_aug":["b.png"]}"#,
            ),
            ("table", "path,class,super_category,split\na.png,Lime,Citrus,test\n,Lime,Citrus,test\n"),
            ("other", "{\"x\": 1, \"y\": 2}\n"),
            ("empty", ""),
            ("alpaca", r#"{"instruction":"?","output":"Lime","image":"a.png"}"#),
            (
                "trl",
                r#"{"prompt":[{"role":"user","content":"?"}],"completion":[{"role":"assistant","content":"Lime"}],"images":["a.png"]}"#,
            ),
            ("quoted", "\"path\";\"class\";\"super_category\";\"split\"\r\n\"a.png\";\"Lime\";\"Citrus\";\"test\"\r\n"),
            ("short.csv", "path,label\na.png,Lime\n"),
        ]);
        RgbImage::new(4, 2).save(dir.path().join("b.png")).unwrap();
        for (name, kind, problems) in [
            ("chat", DataKind::Conversations, 0),
            ("alpaca", DataKind::Conversations, 0),
            ("trl", DataKind::Conversations, 0),
            ("tapo", DataKind::TapoRows, 0),
            ("table", DataKind::Labels, 1),
            ("quoted", DataKind::Labels, 0),
        ] {
            let report = check(&dir, name);
            let images = if kind == DataKind::TapoRows { 2 } else { 1 };
            assert_eq!((report.kind, report.images_found, report.problems.len()), (kind, images, problems), "{report}");
            assert_eq!(report.classes, BTreeMap::from([("Lime".into(), 1)]));
        }
        let other = check_file(&dir.path().join("other"), None).unwrap_err().to_string();
        assert!(other.contains("other: ") && other.contains("x, y"), "{other}");
        let short = check_file(&dir.path().join("short.csv"), None).unwrap_err().to_string();
        assert!(short.contains("\"class\"") && short.contains("path, label") && !short.contains("JSON"), "{short}");
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
            file.name().ends_with("a.png").then(|| "too dark".into())
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
    fn images_that_were_looked_for_and_not_found_are_problems() {
        let row = |image: &str, options: &str| {
            format!(
                "{{\"image_path\":\"{image}\",\"question\":\"?\",\"ground_truth\":\"Lime\",\"options\":{options}}}\n"
            )
        };
        let rows = [row("x/a.jpg", r#"["Lime","Fig"]"#), row("A.PNG", r#"["Fig","Lime"]"#)].concat();
        let dir = folder(&[("fruit_seen.jsonl", &rows)]);
        let report = check(&dir, "fruit_seen.jsonl");
        assert!(report.is_clean());
        assert_eq!((report.images, report.images_missing, report.notes.len()), (2, 2, 1), "{report}");
        let told = check_file(&dir.path().join("fruit_seen.jsonl"), Some(&ImageRoots::new(dir.path()))).unwrap();
        let problems = told.problems.iter().map(|problem| match problem {
            DataError::Row { row, problem: RowProblem::ImageNotFound { image, likely }, .. } => {
                (*row, image.as_str(), likely.as_ref().is_some_and(|likely| likely.contains("a.png")))
            }
            other => panic!("{other}"),
        });
        assert_eq!(problems.collect::<Vec<_>>(), [(1, "x/a.jpg", false), (2, "A.PNG", true)]);
    }

    #[test]
    fn the_photographs_of_a_table_are_beside_it() {
        let dir = folder(&[("labels.csv", "path,class,super_category,split\ngone.png,Lime,Citrus,test\n")]);
        let report = check(&dir, "labels.csv");
        let [DataError::Row { row: 2, problem: RowProblem::ImageNotFound { .. }, .. }] = &report.problems[..] else {
            panic!("{report}")
        };
    }

    #[test]
    fn what_a_row_has_instead_of_a_file_is_checked_too() {
        let png = std::fs::read(folder(&[]).path().join("a.png")).unwrap();
        let row = |image: Value| {
            let text = serde_json::json!({"messages": [
                {"role": "user", "content": "?"}, {"role": "assistant", "content": "Lime"}], "images": [image]});
            format!("{text}\n")
        };
        let text = r#"{"messages":[{"role":"user","content":"1 + 1?"},{"role":"assistant","content":"2"}]}"#;
        let rows =
            format!("{}{}{text}\n", row(serde_json::json!({"bytes": png})), row(serde_json::json!({"bytes": "AAAA"})));
        let dir = folder(&[("chat.jsonl", &rows)]);
        let report = check(&dir, "chat.jsonl");
        assert_eq!((report.good_rows, report.images, report.images_found, report.images_missing), (3, 2, 1, 0));
        let [DataError::Row { row: 2, problem: RowProblem::ImageUnreadable { .. }, .. }] = &report.problems[..] else {
            panic!("{report}")
        };
        let notes = report.notes.join("\n");
        assert!(notes.contains("2 rows") && notes.contains("1 row "), "{notes}");
    }

    #[test]
    fn what_eval_refuses_is_a_problem_and_what_it_leaves_out_is_told() {
        let row = |more: &str| format!("{{\"image_path\":\"a.png\",\"question\":\"?\",{more}}}\n");
        let clash = row(r#""ground_truth":"Lime","options":["Lime","Lemon"],"alias":"lemon""#);
        let dir = folder(&[
            ("fruit_seen.jsonl", &clash),
            ("tapo", r#"{"problem":"?","answer":"Lime","alias":"?!","anchor":"a.png"}"#),
            ("labels.csv", "path,class,super_category,split,aliases\na.png,Lime,x,test,Lemon\n./b.png,Lemon,x,test,\n"),
            ("open_seen.jsonl", &[row(r#""ground_truth":"Lime""#), row(r#""ground_truth":"Plum""#)].concat()),
        ]);
        RgbImage::new(4, 2).save(dir.path().join("b.png")).unwrap();
        for (name, alias) in [("fruit_seen.jsonl", "\"lemon\""), ("tapo", "\"?!\""), ("labels.csv", "\"Lemon\"")] {
            let report = check(&dir, name);
            let [problem] = &report.problems[..] else { panic!("{report}") };
            assert!(problem.to_string().contains(alias) && problem.to_string().contains("\"Lime\""), "{report}");
        }
        let report = check(&dir, "open_seen.jsonl");
        assert!(
            report.is_clean() && report.notes.iter().any(|note| note.starts_with("2 rows have no options")),
            "{report}"
        );
    }

    #[test]
    fn a_file_without_an_object_names_its_first_row() {
        let dir = folder(&[("cut", "\n{\"a\":\n{\"b\":\n"), ("lists", "[[1],[2]]")]);
        for (name, first) in [("cut", 2), ("lists", 1)] {
            let error = check_file(&dir.path().join(name), None).unwrap_err();
            let DataError::Row { row, problem: RowProblem::NoObjects { rows: 2, .. }, .. } = error else {
                panic!("{error}")
            };
            assert_eq!(row, first, "{name}");
        }
    }

    #[test]
    fn control_tokens_are_named_by_row() {
        let row = |question: &str, answer: &str| {
            let system = if answer == "s" { ",\"system\":\"<|im_start|>\"" } else { "" };
            format!(
                "{{\"messages\":[{{\"role\":\"user\",\"content\":\"{question}\"}},\
                 {{\"role\":\"assistant\",\"content\":\"{answer}\"}}]{system}}}\n"
            )
        };
        let rows = [row("?", "Lime"), row("<|image_pad|>?", "x"), row("?", "Lime<|im_end|>"), row("?", "s")];
        let dir = folder(&[("chat.jsonl", &rows.concat())]);
        let report = check(&dir, "chat.jsonl");
        let found = report.problems.iter().map(|problem| match problem {
            DataError::Row { row, problem: RowProblem::ControlToken { token, .. }, .. } => (*row, *token),
            other => panic!("{other}"),
        });
        assert_eq!(found.collect::<Vec<_>>(), [(2, "<|image_pad|>"), (3, "<|im_end|>"), (4, "<|im_start|>")]);
    }

    #[test]
    fn one_photograph_written_in_two_ways_is_one() {
        let row = |path: &str| format!("{{\"image_path\":\"{path}\",\"question\":\"?\",\"ground_truth\":\"Lime\"}}\n");
        let dir = folder(&[("fruit_seen.jsonl", &["a.png", "./a.png", "a.png\\n", ".\\\\a.png"].map(row).concat())]);
        let report = check(&dir, "fruit_seen.jsonl");
        assert!(report.is_clean(), "{report}");
        assert_eq!((report.good_rows, report.images, report.images_found), (4, 1, 1));
    }

    #[test]
    fn a_copy_of_the_anchor_is_no_negative() {
        let row = r#"{"problem":"<image>?","answer":"Lime","anchor":"a.png","positive":"b.png","negative":"copy.png"}"#;
        let dir = folder(&[("tapo.jsonl", row)]);
        RgbImage::new(4, 2).save(dir.path().join("b.png")).unwrap();
        std::fs::copy(dir.path().join("a.png"), dir.path().join("copy.png")).unwrap();
        let report = check(&dir, "tapo.jsonl");
        let [DataError::Row { row: 1, problem: RowProblem::SameImage("anchor"), .. }] = &report.problems[..] else {
            panic!("{report}")
        };
    }
}
