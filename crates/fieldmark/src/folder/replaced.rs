//! What a command replaces in a folder, set aside until the new results are whole. If the command fails before that, it
//! is put back; if it is killed, the next command that overwrites the folder puts it back first.
//!
//! The old `checkpoint` stays where it is until a new one takes its place.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    inputs::INPUTS,
    run_folder::{RunFolder, check_can_write},
};
use crate::error::RunError;

/// The files and folders that a run of any stage writes to its folder.
pub const LEFT_BEHIND: [&str; 11] = [
    "checkpoint",
    "checkpoints",
    INPUTS,
    "loss.svg",
    "metrics.jsonl",
    "recipe.toml",
    "reward.svg",
    "rollouts.jsonl",
    "tensorboard",
    "timings.jsonl",
    "validation.jsonl",
];

/// The files that an evaluation writes to its folder.
pub const EVAL_LEFT_BEHIND: [&str; 4] = ["eval.toml", "eval-inputs.json", "predictions.jsonl", "report.txt"];

/// The results that one kind of command writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Results {
    /// The name of the folder for what is set aside.
    aside: &'static str,
    /// Its name while things are moved into it or out of it.
    moving: &'static str,
    /// Its name when it may be removed; see [`RunFolder::remove`].
    old: &'static str,
    /// The files and folders that are set aside.
    names: &'static [&'static str],
    /// The folder that stays in its place.
    stays: Option<&'static str>,
}

/// The results of training.
pub(crate) const RUN: Results = Results {
    aside: ".before-run",
    moving: ".moving-run",
    old: ".replaced-run",
    names: &LEFT_BEHIND,
    stays: Some("checkpoint"),
};

/// The results of an evaluation.
pub(crate) const EVAL: Results = Results {
    aside: ".before-eval",
    moving: ".moving-eval",
    old: ".replaced-eval",
    names: &EVAL_LEFT_BEHIND,
    stays: None,
};

impl Results {
    fn movable(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.names.iter().copied().filter(|name| Some(*name) != self.stays)
    }
}

/// Old results that are set aside. Dropping it puts them back, unless [`Self::settle`] or [`Self::leave`] was called.
#[derive(Debug)]
pub(crate) struct Replaced {
    folder: RunFolder,
    results: Results,
    /// Whether old results are set aside.
    is_pending: bool,
    puts_back: bool,
}

impl Replaced {
    /// Removes the old results, because new ones are whole. `has_new` says that a new folder has taken the place of the
    /// one that stayed.
    ///
    /// # Errors
    /// Returns an error if a file cannot be moved or removed.
    pub(crate) fn settle(&mut self, has_new: bool) -> Result<(), RunError> {
        if !std::mem::take(&mut self.is_pending) {
            return Ok(());
        }
        let Results { aside, old, stays, .. } = self.results;
        let aside = self.folder.file(aside);
        if let Some(name) = stays.filter(|name| !has_new && self.folder.file(name).exists()) {
            rename(&self.folder.file(name), &aside.join(name))?;
        }
        rename(&aside, &self.folder.file(old))?;
        self.folder.remove(&[])
    }

    /// Leaves the old results aside, because the new ones are worth keeping but not whole.
    pub(crate) fn leave(&mut self) {
        self.puts_back = false;
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        if self.is_pending && self.puts_back {
            // The command has failed already, and its error says more. What could not be moved stays aside.
            let _ = self.folder.put_back(self.results);
        }
    }
}

impl RunFolder {
    /// Checks that results can be written to this folder, and that old ones in it can be replaced, so that this is known
    /// before the work is done. Leaves nothing behind.
    ///
    /// # Errors
    /// Returns an error that names what cannot be written to or replaced.
    pub(crate) fn check_writable(&self, results: Results) -> Result<(), RunError> {
        self.check_can_write()?;
        for path in results.names.iter().map(|name| self.file(name)) {
            // A folder that is moved must be writable itself.
            if path.symlink_metadata().is_ok_and(|data| data.is_dir()) {
                check_can_write(&path, self.option())?;
            }
        }
        match results.stays.map(|name| self.file(name)) {
            Some(path) if exists(&path) && !path.is_dir() => {
                let problem = format!(
                    "is not a folder, but the results need a folder of this name; move it away, or choose another folder \
                     with {}",
                    self.option()
                );
                Err(RunError::path(path, problem))
            }
            _ => Ok(()),
        }
    }

    /// Returns true if results of an earlier command are set aside, so that those in their place are new or not whole.
    pub(crate) fn has_aside(&self, results: Results) -> bool {
        self.file(results.aside).is_dir()
    }

    /// Sets the results in this folder aside. First puts back what a killed command had set aside.
    ///
    /// # Errors
    /// Returns an error if a file cannot be moved.
    pub(crate) fn set_aside(&self, results: Results) -> Result<Replaced, RunError> {
        self.put_back(results)?;
        let is_pending = results.names.iter().any(|name| exists(&self.file(name)));
        let replaced = Replaced { folder: self.clone(), results, is_pending, puts_back: true };
        if is_pending {
            let moving = self.file(results.moving);
            fs::create_dir(&moving).map_err(RunError::io(&moving))?;
            for name in results.movable().filter(|name| exists(&self.file(name))) {
                rename(&self.file(name), &moving.join(name))?;
            }
            rename(&moving, &self.file(results.aside))?;
        }
        Ok(replaced)
    }

    /// Goes on beside what an earlier process of the same command has set aside.
    pub(crate) fn go_on_beside(&self, results: Results) -> Replaced {
        Replaced { folder: self.clone(), results, is_pending: self.has_aside(results), puts_back: false }
    }

    /// Removes the new results that are in the place of those set aside, except the folder that stays.
    ///
    /// # Errors
    /// Returns an error if one of them cannot be removed.
    pub(crate) fn remove_new(&self, results: Results) -> Result<(), RunError> {
        self.remove(&results.movable().collect::<Vec<_>>())
    }

    /// Puts back the results that a command has set aside, in the place of its own.
    ///
    /// # Errors
    /// Returns an error if a file cannot be moved. What is not put back yet stays aside.
    pub(crate) fn put_back(&self, results: Results) -> Result<(), RunError> {
        let (aside, moving) = (self.file(results.aside), self.file(results.moving));
        if aside.is_dir() {
            self.remove_new(results)?;
            rename(&aside, &moving)?;
        }
        if !moving.is_dir() {
            return Ok(());
        }
        for name in results.names.iter().filter(|name| exists(&moving.join(name))) {
            self.remove(&[name])?;
            rename(&moving.join(name), &self.file(name))?;
        }
        fs::remove_dir(&moving).map_err(RunError::io(&moving))
    }
}

/// Returns true if there is a file, a folder, or a symbolic link to nothing.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn rename(from: &Path, to: &PathBuf) -> Result<(), RunError> {
    fs::rename(from, to).map_err(|error| RunError::path(from, format!("cannot be moved: {error}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Files with their texts, hidden ones included.
    fn files(folder: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                found.extend(files(&path).into_iter().map(|(inner, text)| (format!("{name}/{inner}"), text)));
            } else {
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
        found
    }

    fn write(folder: &Path, which: &str, names: &[&str]) {
        for name in names {
            fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), which).unwrap();
        }
    }

    const OLD: [&str; 5] =
        ["checkpoint/model", "checkpoints/step-000001/model", "metrics.jsonl", "recipe.toml", "mine.txt"];
    const NEW: [&str; 3] = ["checkpoints/step-000002/model", "metrics.jsonl", "rollouts.jsonl"];

    fn place() -> (tempfile::TempDir, RunFolder) {
        let place = tempfile::tempdir().unwrap();
        write(place.path(), "old", &OLD);
        let folder = RunFolder::at(Some(place.path())).unwrap();
        (place, folder)
    }

    #[test]
    fn a_command_that_fails_leaves_the_folder_as_it_was() {
        let (place, folder) = place();
        let before = files(place.path());
        let replaced = folder.set_aside(RUN).unwrap();
        // The old model is in its place, the logs are not.
        assert!(folder.file("checkpoint/model").exists() && !folder.file("metrics.jsonl").exists());
        write(place.path(), "new", &NEW);
        drop(replaced);
        assert_eq!(files(place.path()), before);
        assert!(!folder.has_aside(RUN));
    }

    #[test]
    fn a_killed_command_is_undone_by_the_next_one_wherever_it_was() {
        // Before all was set aside, after it, with new results, and while they were put back.
        for step in 0..4 {
            let (place, folder) = place();
            let before = files(place.path());
            if step == 0 {
                fs::create_dir(folder.file(RUN.moving)).unwrap();
                fs::rename(folder.file("metrics.jsonl"), folder.file(RUN.moving).join("metrics.jsonl")).unwrap();
            } else {
                std::mem::forget(folder.set_aside(RUN).unwrap());
            }
            if step == 2 {
                write(place.path(), "new", &NEW);
            }
            if step == 3 {
                fs::rename(folder.file(RUN.aside), folder.file(RUN.moving)).unwrap();
                fs::rename(folder.file(RUN.moving).join("checkpoints"), folder.file("checkpoints")).unwrap();
            }
            let mut again = folder.set_aside(RUN).unwrap();
            again.leave();
            drop(again);
            assert!(folder.has_aside(RUN), "{step}");
            folder.put_back(RUN).unwrap();
            assert_eq!(files(place.path()), before, "{step}");
        }
    }

    #[test]
    fn new_results_replace_the_old_ones_once_they_are_whole() {
        for has_new in [false, true] {
            let (place, folder) = place();
            let mut replaced = folder.set_aside(RUN).unwrap();
            write(place.path(), "new", &NEW);
            if has_new {
                write(place.path(), "new", &["checkpoint/model"]);
            }
            replaced.settle(has_new).unwrap();
            drop(replaced);
            let found = files(place.path());
            let mut expected: BTreeMap<String, String> = NEW.map(|name| (name.into(), "new".into())).into();
            expected.insert("mine.txt".into(), "old".into());
            if has_new {
                expected.insert("checkpoint/model".into(), "new".into());
            }
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn an_empty_folder_has_nothing_to_set_aside() {
        let place = tempfile::tempdir().unwrap();
        let folder = RunFolder::at(Some(place.path())).unwrap();
        let mut replaced = folder.set_aside(RUN).unwrap();
        assert!(!folder.has_aside(RUN));
        write(place.path(), "new", &NEW);
        replaced.settle(true).unwrap();
        drop(replaced);
        assert_eq!(files(place.path()).len(), NEW.len());
    }
}
