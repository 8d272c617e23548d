//! What a folder of photographs must hold for the demo. It is checked first, so that minutes of training are not lost.

use std::{collections::BTreeMap, path::Path};

use fieldmark_data::{LabelledFolder, SourceSplit};

use crate::error::RunError;

/// What a folder of photographs must hold, for users.
pub const PHOTOGRAPHS: &str = "The folder must hold labels.csv, with the columns path (relative to the folder), class, \
super_category (its family) and split (train or test), and the photographs that it names (JPEG, PNG or WebP). It needs at \
least 8 classes with names in ASCII, each with at least 2 training photographs and 1 test photograph. 6 classes are held out \
as unseen.";

/// Classes that no training photograph shows.
pub(super) const UNSEEN: usize = 6;
/// Unseen classes, one to learn and one to confuse it with.
const CLASSES: usize = UNSEEN + 2;
/// An anchor and a positive.
const TRAIN: usize = 2;
const TEST: usize = 1;

/// Reads `labels.csv` in `folder` and checks that the demo can use it.
///
/// # Errors
/// Returns an error that names the file, and the class that has too few photographs.
pub(super) fn open(folder: &Path) -> Result<LabelledFolder, RunError> {
    let table = folder.join("labels.csv");
    let refuse = |problem: String| Err(RunError::path(&table, problem));
    if !table.is_file() {
        return refuse(format!("not found. {PHOTOGRAPHS}"));
    }
    let found = LabelledFolder::open(folder)?;
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for photo in &found.photos {
        let [train, test] = counts.entry(&photo.class).or_default();
        match photo.split {
            SourceSplit::Train => *train += 1,
            SourceSplit::Test => *test += 1,
        }
    }
    if counts.len() < CLASSES {
        return refuse(format!("has {} classes, but the demo needs at least {CLASSES}. {PHOTOGRAPHS}", counts.len()));
    }
    for (class, [train, test]) in counts {
        if !class.is_ascii() {
            return refuse(format!("the class {class:?} has a name that is not ASCII; rename it"));
        }
        if train < TRAIN || test < TEST {
            return refuse(format!(
                "the class {class:?} has {train} training and {test} test photographs, but the demo needs at least {TRAIN} \
                 and {TEST}; add photographs or remove the class"
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error about a table of `classes` classes, the last of them with `train` and `test` photographs.
    fn error(classes: usize, name: &str, train: usize, test: usize) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let mut table = String::from("path,class,super_category,split\n");
        for class in 0..classes {
            let last = class + 1 == classes;
            let (name, train, test) =
                if last { (name.to_owned(), train, test) } else { (format!("class {class}"), 2, 1) };
            (0..train).for_each(|i| table.push_str(&format!("{class}-{i}.jpg,{name},Family,train\n")));
            (0..test).for_each(|i| table.push_str(&format!("{class}-test-{i}.jpg,{name},Family,test\n")));
        }
        std::fs::write(folder.path().join("labels.csv"), table).unwrap();
        open(folder.path()).err().map(|error| {
            assert!(matches!(&error, RunError::Path { path, .. } if path.ends_with("labels.csv")), "{error}");
            error.to_string()
        })
    }

    #[test]
    fn too_few_classes_or_photographs_are_refused_first() {
        assert_eq!(error(8, "Lime", 2, 1), None);
        let few = error(7, "Lime", 2, 1).unwrap();
        assert!(few.contains("7 classes") && few.contains("super_category"), "{few}");
        for (name, train, test) in [("Lime", 1, 1), ("Lime", 2, 0), ("L\u{ed}me", 2, 1)] {
            let error = error(8, name, train, test).unwrap();
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
        assert!(
            CLASSES == 8 && PHOTOGRAPHS.contains("8 classes") && PHOTOGRAPHS.contains(&format!("{UNSEEN} classes"))
        );
        let missing = open(tempfile::tempdir().unwrap().path()).unwrap_err().to_string();
        assert!(missing.contains("labels.csv") && missing.contains("super_category"), "{missing}");
    }
}
