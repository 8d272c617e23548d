//! Evaluation questions: from files of evaluation rows, or about the test photographs of a labelled folder.

use std::path::{Path, PathBuf};

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
    sets.map(|(set, images)| Ok(QuestionSet { questions: questions(eval, set)?, images })).collect()
}

/// Returns every set of rows with the folders of its images.
fn row_sets(eval: &EvalSection, data: &DataSection) -> Result<Vec<(EvalSet, ImageRoots)>, RunError> {
    if eval.worlds.is_empty() {
        let problem = "must not be empty; use \"closed\", \"open\" or both".into();
        return Err(RunError::Setting { key: "eval.worlds".into(), value: "[]".into(), problem });
    }
    let mut sets = Vec::new();
    for path in &eval.files {
        for file in files(path)? {
            let set = read_eval_rows(&file, EvalSetName::from_file_name(&file)?)?;
            sets.push((set, data.roots(&file)));
        }
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
        sets = sets
            .into_iter()
            .map(|(set, images)| Ok((set.with_aliases(&aliases, file)?, images)))
            .collect::<Result<_, RunError>>()?;
    }
    for (set, _) in &mut sets {
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

fn from_labels(folder: &Path, eval: &EvalSection, data: &DataSection) -> Result<Vec<(EvalSet, ImageRoots)>, RunError> {
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
        sets.push((set, ImageRoots::new(folder)));
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

#[cfg(test)]
mod tests {
    use super::*;
    use fieldmark_data::{Aliases, EvalRow};

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
