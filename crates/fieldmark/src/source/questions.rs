//! Evaluation questions: from files of evaluation rows, or about the test photographs of a labelled folder.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use fieldmark_data::{EvalSet, EvalSetName, ImageRoots, Split, eval_set_from_photos, read_eval_rows};
use fieldmark_eval::{OptionOrder, Question, QuestionSet, World, closed_questions, open_questions, rotations};

use super::{labels::Labels, unseen::unseen};
use crate::{
    error::RunError,
    recipe::{DataSection, EvalSection, Order},
};

/// Makes the question sets of an evaluation from `eval.files`, or about the test photographs of `data.labels`.
///
/// # Errors
/// Returns an error if there are no questions, or a file or photograph cannot be read.
pub fn question_sets(eval: &EvalSection, data: &DataSection) -> Result<Vec<QuestionSet>, RunError> {
    let sets = row_sets(eval, data)?.into_iter();
    let make = |RowSet { set, images, file }: RowSet| -> Result<QuestionSet, RunError> {
        let mut questions = questions(eval, set)?;
        questions.iter_mut().for_each(|question| question.file.clone_from(&file));
        Ok(QuestionSet { questions, images })
    };
    sets.map(make).collect()
}

/// Returns the files of `eval.files` and of the folders in it.
///
/// # Errors
/// Returns an error if a folder has no such files, or if a file is named twice.
pub fn question_files(eval: &EvalSection) -> Result<Vec<PathBuf>, RunError> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut known = BTreeSet::new();
    for path in &eval.files {
        for file in files(path)? {
            if !known.insert(std::fs::canonicalize(&file).unwrap_or_else(|_| file.clone())) {
                let problem = "this file is named twice, and its questions would count twice; name it once".into();
                return Err(RunError::Setting { key: "eval.files".into(), value: file.display().to_string(), problem });
            }
            found.push(file);
        }
    }
    Ok(found)
}

/// Returns a note if `data.aliases` names no class of the questions.
///
/// # Errors
/// Returns an error if the file of aliases is wrong.
pub fn unused_aliases(data: &DataSection, sets: &[QuestionSet]) -> Result<Option<String>, RunError> {
    let Some(file) = data.aliases_file() else { return Ok(None) };
    let questions = sets.iter().flat_map(|set| &set.questions);
    let names = questions.flat_map(|question| question.options.iter().chain([&question.ground_truth]));
    Ok(data.read_aliases()?.unused_note(names.map(String::as_str), &file.display().to_string()))
}

/// The rows of a file or of a labelled folder.
struct RowSet {
    set: EvalSet,
    images: ImageRoots,
    /// The name of the file, if other files have the same data set and split.
    file: Option<String>,
}

/// The end of each path that tells it from the paths with the same name, or `None` if no other has this name.
fn distinct_ends<N: PartialEq>(paths: &[(N, PathBuf)]) -> Vec<Option<String>> {
    let end = |path: &Path, parts: usize| -> String {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        let all: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        all[all.len().saturating_sub(parts)..].join("/")
    };
    let one = |(place, (name, path)): (usize, &(N, PathBuf))| {
        let is_other = |(other, (its, _)): &(usize, &(N, PathBuf))| *other != place && its == name;
        let others: Vec<&PathBuf> = paths.iter().enumerate().filter(is_other).map(|(_, (_, path))| path).collect();
        let is_distinct = |parts: &usize| others.iter().all(|other| end(other, *parts) != end(path, *parts));
        (!others.is_empty()).then(|| end(path, (1..64).find(is_distinct).unwrap_or(64)))
    };
    paths.iter().enumerate().map(one).collect()
}

/// Returns every set of rows with the folders of its images.
fn row_sets(eval: &EvalSection, data: &DataSection) -> Result<Vec<RowSet>, RunError> {
    if eval.worlds.is_empty() {
        let problem = "must not be empty; use \"closed\", \"open\" or both".into();
        return Err(RunError::Setting { key: "eval.worlds".into(), value: "[]".into(), problem });
    }
    let mut named = Vec::new();
    for file in question_files(eval)? {
        named.push((EvalSetName::from_file_name(&file)?, file));
    }
    let mut sets = Vec::new();
    for ((name, path), file) in named.iter().zip(distinct_ends(&named)) {
        sets.push(RowSet { set: read_eval_rows(path, name.clone())?, images: data.roots(path), file });
    }
    match &data.labels {
        Some(folder) if sets.is_empty() => sets.extend(from_labels(folder, eval, data)?),
        None if sets.is_empty() => {
            return Err(RunError::Missing {
                what: "questions",
                key: "eval.files='[\"FILE\"]' or --set data.labels=DIR",
            });
        }
        _ => {}
    }
    let aliases = data.read_aliases()?;
    if let Some(file) = data.aliases_file() {
        let add = |row: RowSet| -> Result<RowSet, RunError> {
            Ok(RowSet { set: row.set.with_aliases(&aliases, file)?, ..row })
        };
        sets = sets.into_iter().map(add).collect::<Result<_, _>>()?;
    }
    for RowSet { set, .. } in &mut sets {
        if eval.released_super_category {
            set.rows.iter_mut().for_each(|row| row.super_category = row.released_super_category().into());
        }
        if let Some(limit) = eval.limit.filter(|limit| *limit < set.rows.len()) {
            let total = set.rows.len();
            set.rows = (0..limit).map(|i| set.rows[i * total / limit].clone()).collect();
        }
    }
    Ok(sets)
}

/// Returns the file itself, or the evaluation files of a folder in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, RunError> {
    if !path.is_dir() {
        return Ok(vec![path.into()]);
    }
    let entries = std::fs::read_dir(path).map_err(RunError::io(path))?;
    let files = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> = files.filter(|file| EvalSetName::from_file_name(file).is_ok()).collect();
    files.sort();
    if files.is_empty() {
        return Err(RunError::path(path, "has no file named <dataset>_seen.jsonl or <dataset>_unseen.jsonl"));
    }
    Ok(files)
}

fn from_labels(folder: &Path, eval: &EvalSection, data: &DataSection) -> Result<Vec<RowSet>, RunError> {
    let labels = Labels::open(folder, &unseen(data)?)?;
    let similar = labels.similar(&labels.all_training(), data.decode())?;
    let dataset = folder.file_name().map_or("photographs".into(), |name| name.to_string_lossy().into_owned());
    let mut sets = Vec::new();
    for split in Split::ALL {
        let photos = labels.test(split);
        if photos.is_empty() {
            continue;
        }
        let name = EvalSetName { dataset: dataset.clone(), split, super_category: dataset.clone() };
        let set = eval_set_from_photos(name, photos, &similar, eval.options, |_| data.question.clone())?;
        let set = set.with_aliases(&labels.folder.aliases()?, &labels.table)?;
        sets.push(RowSet { set, images: ImageRoots::new(folder), file: None });
    }
    if sets.is_empty() {
        return Err(RunError::path(folder, "labels.csv has no photograph in the split \"test\""));
    }
    Ok(sets)
}

/// Makes the questions of a set. Questions about the same photograph are next to each other.
fn questions(eval: &EvalSection, set: EvalSet) -> Result<Vec<Question>, RunError> {
    let mut questions = Vec::new();
    let seed = eval.option_seed;
    if eval.worlds.contains(&World::Closed) {
        let set = with_options(&set, &eval.worlds);
        let most = set.rows.iter().map(|row| row.options.len()).max().unwrap_or(0);
        let orders: Vec<OptionOrder> = match eval.order {
            Order::Shuffled => vec![OptionOrder::Shuffled { seed }],
            Order::Released => vec![OptionOrder::Released],
            Order::Rotations => rotations(seed, most.max(1)).collect(),
        };
        for order in orders {
            let fits = |question: &Question| match order {
                OptionOrder::Rotated { by, .. } => by < question.options.len(),
                _ => true,
            };
            questions.extend(closed_questions(&set, order, eval.closed_prompt)?.into_iter().filter(fits));
        }
    }
    if eval.worlds.contains(&World::Open) {
        questions.extend(open_questions(&set, eval.open_prompt));
    }
    questions.sort_by_key(|question| question.row);
    Ok(questions)
}

/// The rows to ask in the closed world. A row without options is asked in the open world alone; if that is not asked, the
/// row stays, so that it is refused and not left out.
fn with_options(set: &EvalSet, worlds: &[World]) -> EvalSet {
    let mut set = set.clone();
    if worlds.contains(&World::Open) {
        set.rows.retain(|row| !row.options.is_empty());
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldmark_data::{Aliases, EvalRow};

    #[test]
    fn files_of_the_same_name_have_the_end_of_their_path() {
        let paths = |names: &[(&'static str, &str)]| {
            let paths: Vec<_> = names.iter().map(|(name, path)| (*name, PathBuf::from(path))).collect();
            let ends = distinct_ends(&paths);
            ends.into_iter().map(|end| end.unwrap_or("none".into())).collect::<Vec<_>>()
        };
        assert_eq!(paths(&[("a", "/x/a_seen.jsonl"), ("b", "/y/b_seen.jsonl")]), ["none", "none"]);
        assert_eq!(
            paths(&[("a", "/x/a_seen.jsonl"), ("b", "/x/b_seen.jsonl"), ("a", "/y/a_seen.jsonl")]),
            ["x/a_seen.jsonl", "none", "y/a_seen.jsonl"]
        );
        assert_eq!(paths(&[("a", "/a_seen.json"), ("a", "/a_seen.json.gz")]), ["a_seen.json", "a_seen.json.gz"]);
        assert_eq!(paths(&[("a", "/1/x/a.json"), ("a", "/2/x/a.json")]), ["1/x/a.json", "2/x/a.json"]);
    }

    #[test]
    fn the_rows_of_two_files_are_other_questions_and_a_file_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let row = r#"{"image_path":"a.png","question":"?","options":["Lime","Plum"],"ground_truth":"Lime"}"#;
        for name in ["x", "y"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("fruit_seen.jsonl"), format!("{row}\n")).unwrap();
        }
        let sets = |files: Vec<PathBuf>| {
            let eval = EvalSection { files, ..EvalSection::default() };
            question_sets(&eval, &DataSection::default())
        };
        let names = |sets: Vec<QuestionSet>| -> Vec<Option<String>> {
            sets.into_iter().map(|set| set.questions[0].file.clone()).collect()
        };
        let both = sets(vec![at("x"), at("y/fruit_seen.jsonl")]).unwrap();
        assert_eq!(names(both), [Some("x/fruit_seen.jsonl".into()), Some("y/fruit_seen.jsonl".into())]);
        assert_eq!(names(sets(vec![at("x")]).unwrap()), [None]);
        for twice in [at("x"), at("x/fruit_seen.jsonl"), at("y/../x/./fruit_seen.jsonl")] {
            let error = sets(vec![at("x/fruit_seen.jsonl"), twice]).unwrap_err();
            assert!(matches!(&error, RunError::Setting { key, .. } if key == "eval.files"), "{error}");
        }
    }

    #[test]
    fn a_row_without_options_is_asked_in_the_open_world_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fruit_seen.jsonl");
        let row = r#""image_path":"a.png","question":"?","ground_truth":"Lime""#;
        std::fs::write(&file, format!("{{{row},\"options\":[\"Lime\",\"Plum\"]}}\n{{{row}}}\n")).unwrap();
        let ask = |worlds: &[World]| {
            let eval = EvalSection { files: vec![file.clone()], worlds: worlds.into(), ..EvalSection::default() };
            question_sets(&eval, &DataSection::default())
        };
        let asked = ask(&World::ALL).unwrap().remove(0).questions;
        let asked: Vec<_> = asked.iter().map(|question| (question.row, question.world)).collect();
        assert_eq!(asked, [(1, World::Closed), (1, World::Open), (2, World::Open)]);
        let error = ask(&[World::Closed]).unwrap_err().to_string();
        assert!(error.contains("row 2") && error.contains("eval.worlds"), "{error}");
    }

    #[test]
    fn rotations_ask_each_row_as_often_as_it_has_options() {
        let row = |row, options: &[&str]| EvalRow {
            row,
            image_path: "a".into(),
            question: "?".into(),
            options: options.iter().map(|option| (*option).into()).collect(),
            ground_truth: "A".into(),
            super_category: "x".into(),
        };
        let set = EvalSet {
            name: EvalSetName { dataset: "x".into(), split: Split::Seen, super_category: "x".into() },
            rows: vec![row(1, &["A", "B"]), row(2, &["A", "B", "C", "D"])],
            aliases: Aliases::default(),
        };
        let eval = EvalSection { order: Order::Rotations, ..EvalSection::default() };
        let asked = questions(&eval, set).unwrap();
        let rows: Vec<usize> = asked.iter().map(|question| question.row).collect();
        assert_eq!(rows, [1, 1, 1, 2, 2, 2, 2, 2]);
        let firsts: std::collections::BTreeSet<&str> =
            asked.iter().filter(|q| q.row == 2 && q.world == World::Closed).map(|q| q.options[0].as_str()).collect();
        assert_eq!(firsts.len(), 4);
    }
}
