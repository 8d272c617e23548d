//! Finds the newest folder of a kind inside another one, such as the last checkpoint in the folder of a run.

use std::{
    cmp::Reverse,
    path::{Path, PathBuf},
};

use super::found::file_names;

/// How deep folders may lie to be found, and how many are looked at.
const DEPTH: usize = 3;
const MOST: usize = 500;

/// Returns the newest of the folders in `path` that have the file `mark`: the one with the highest number in its name.
pub(crate) fn newest_inside(path: &Path, mark: &str) -> Option<PathBuf> {
    let (mut found, mut level, mut looked_at) = (Vec::new(), vec![path.to_path_buf()], 0);
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for folder in level {
            // Hidden folders are unfinished, and a checkpoint's own folder `trainer` holds no model to ask.
            let names = file_names(&folder).into_iter().filter(|name| !name.starts_with('.') && name != "trainer");
            for inner in names.map(|name| folder.join(name)).filter(|inner| inner.is_dir()) {
                looked_at += 1;
                if looked_at > MOST {
                    break;
                }
                // A link to nothing counts: whoever gives that folder is told.
                if inner.join(mark).symlink_metadata().is_ok() { found.push(inner) } else { next.push(inner) }
            }
        }
        level = next;
    }
    // The shortest path first, so that what lies deeper in an older folder does not win.
    found.into_iter().min_by_key(|inner| (inner.components().count(), Reverse(numbers(inner))))
}

/// The numbers in the last names of a path, so that `checkpoint-1000` comes after `checkpoint-500`.
fn numbers(path: &Path) -> Vec<u64> {
    let name = path.iter().rev().take(DEPTH).collect::<Vec<_>>().into_iter().rev().collect::<PathBuf>();
    let text = name.to_string_lossy().into_owned();
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}
