//! The folder of a run: it is not overwritten by accident, only one run at a time writes to it, and every file appears
//! whole.

use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
};

use fieldmark_model::files::{self, persist_folder};

use super::hand_written::is_hand_written;
use crate::error::RunError;

/// Files that systems and version control put into a folder, and that no run reads or replaces.
const INCIDENTAL: [&str; 5] = [".DS_Store", ".gitignore", ".gitkeep", "Thumbs.db", "desktop.ini"];

/// The folder of a run.
#[derive(Debug, Clone)]
pub struct RunFolder {
    path: PathBuf,
    /// Whether the folder must be empty when a run starts to write to it.
    is_new: bool,
    /// The option that chooses another folder.
    option: &'static str,
}

/// Keeps other commands out of a folder until it and its clones are dropped or the process ends.
#[derive(Debug, Clone)]
pub struct Lock(#[allow(dead_code)] Option<Arc<File>>);

impl RunFolder {
    /// Checks that a new run may write to `path`. Does not create the folder.
    ///
    /// # Errors
    /// Returns an error if there is no path, if it is a file, or if the folder is not empty and `overwrite` is false.
    pub fn check(path: Option<&Path>, overwrite: bool) -> Result<Self, RunError> {
        let folder = Self { is_new: !overwrite, ..Self::at(path)? };
        folder.check_empty()?;
        Ok(folder)
    }

    /// Checks that a folder that must be empty is empty. Another command may have written to it before it was locked.
    pub(crate) fn check_empty(&self) -> Result<(), RunError> {
        if self.is_new && !self.is_empty()? {
            let replaced =
                if is_hand_written(&self.file("recipe.toml")) { ", which replaces the recipe.toml in it" } else { "" };
            let option = self.option;
            let problem = format!("is not empty; choose another folder with {option}, or add --overwrite{replaced}");
            return Err(RunError::path(&self.path, problem));
        }
        Ok(())
    }

    /// Takes the folder at `path`, whatever it holds.
    ///
    /// # Errors
    /// Returns an error if there is no path, or if it is a file.
    pub fn at(path: Option<&Path>) -> Result<Self, RunError> {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let path = path.ok_or(RunError::Missing { what: "output folder", key: "output=DIR" })?;
        Self::given_by("--set output=DIR", path)
    }

    /// Takes the folder at `path`, whatever it holds. `option` is what errors propose to choose another one.
    ///
    /// # Errors
    /// Returns an error if the path is a file.
    pub(crate) fn given_by(option: &'static str, path: &Path) -> Result<Self, RunError> {
        // Of the path and the folders that it lies in, the first that exists.
        let there = path.ancestors().find(|path| path.exists());
        if let Some(file) = there.filter(|path| !path.is_dir()) {
            return Err(RunError::path(file, format!("is not a folder; choose another path with {option}")));
        }
        Ok(Self { path: path.into(), is_new: false, option })
    }

    /// The option that chooses another folder.
    pub(super) fn option(&self) -> &'static str {
        self.option
    }

    /// Returns true if the folder is empty or does not exist. What systems and version control put into a folder does
    /// not count, such as `.DS_Store`.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read.
    pub fn is_empty(&self) -> Result<bool, RunError> {
        match fs::read_dir(&self.path) {
            Ok(mut inside) => Ok(inside.all(|entry| entry.is_ok_and(|entry| is_incidental(&entry.file_name())))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(RunError::io(&self.path)(error)),
        }
    }

    /// Returns the names of what is in the folder; none if it does not exist.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read.
    pub(crate) fn names(&self) -> Result<Vec<String>, RunError> {
        let inside = match fs::read_dir(&self.path) {
            Ok(inside) => inside,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(RunError::io(&self.path)(error)),
        };
        let name =
            |entry: std::io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name().to_string_lossy().into_owned());
        inside.map(name).collect::<Result<_, _>>().map_err(RunError::io(&self.path))
    }

    /// Returns true if the folder holds nothing but hidden files, which a run that was killed at once may have left, and
    /// what systems and version control put into it.
    pub(crate) fn only_hidden(&self) -> Result<bool, RunError> {
        if self.is_empty()? {
            return Ok(true);
        }
        for entry in fs::read_dir(&self.path).map_err(RunError::io(&self.path))? {
            let name = entry.map_err(RunError::io(&self.path))?.file_name();
            if !name.to_string_lossy().starts_with('.') && !is_incidental(&name) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Copies what systems and version control have put into this folder to the folder that takes its place.
    pub(crate) fn keep_incidental(&self, inside: &Path) -> Result<(), RunError> {
        for name in INCIDENTAL.into_iter().filter(|name| self.file(name).is_file()) {
            fs::copy(self.file(name), inside.join(name)).map_err(RunError::io(self.file(name)))?;
        }
        Ok(())
    }

    /// Checks that files can be made in the folder, or in the one that it will be made in. Leaves nothing behind.
    pub(super) fn check_can_write(&self) -> Result<(), RunError> {
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let there = path.ancestors().find(|path| path.exists()).unwrap_or(&path);
        let there = if there == path { self.path.as_path() } else { there };
        check_can_write(there, self.option)
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the folder.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created.
    pub fn create(&self) -> Result<(), RunError> {
        let made = fs::create_dir_all(&self.path);
        made.map_err(|error| RunError::path(&self.path, format!("cannot be created: {error}")))
    }

    /// Locks the folder, which must exist, until the returned guard is dropped. Every command that writes to the folder
    /// takes the lock before it touches anything in it. Does nothing on systems without folder locks.
    ///
    /// # Errors
    /// Returns an error if another command has the lock.
    pub fn lock(&self) -> Result<Lock, RunError> {
        let Ok(folder) = File::open(&self.path) else { return Ok(Lock(None)) };
        match folder.try_lock() {
            Ok(()) => Ok(Lock(Some(Arc::new(folder)))),
            Err(TryLockError::WouldBlock) => {
                let option = self.option;
                let problem =
                    format!("another run is writing to it; wait until it ends, or choose another folder with {option}");
                Err(RunError::path(&self.path, problem))
            }
            Err(TryLockError::Error(_)) => Ok(Lock(None)),
        }
    }

    /// Returns the path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file. It appears whole or not at all.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), RunError> {
        write_whole(&self.file(name), content)
    }

    /// Writes a subfolder with `fill`. It appears when `fill` has returned and all of it is on disk, and replaces an
    /// older folder of the same name.
    ///
    /// # Errors
    /// Returns the errors of `fill`, and an error if the folder cannot be written.
    pub fn write_folder(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> Result<(), RunError>,
    ) -> Result<PathBuf, RunError> {
        let target = self.file(name);
        let failed = |error: std::io::Error| RunError::path(&target, format!("cannot be written: {error}"));
        let prefix = format!(".{name}-");
        let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.path).map_err(failed)?;
        fill(made.path())?;
        persist_folder(made, &target).map_err(failed)?;
        Ok(target)
    }

    /// Removes the named files and folders if they exist, and unfinished ones that a killed run left.
    ///
    /// # Errors
    /// Returns an error if one of them cannot be removed.
    pub fn remove(&self, names: &[&str]) -> Result<(), RunError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(RunError::io(&self.path)(error)),
        };
        for entry in entries {
            let path = entry.map_err(RunError::io(&self.path))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let unfinished = UNFINISHED.iter().any(|prefix| name.starts_with(prefix));
            let replaced = path.join("folder");
            if unfinished && replaced.is_dir() && !self.file("checkpoint").exists() {
                // Killed between the two renames that replace a checkpoint: the old one is the only one that is whole.
                fs::rename(&replaced, self.file("checkpoint")).map_err(RunError::io(&replaced))?;
            }
            if unfinished || names.contains(&&*name) {
                // A symbolic link is removed itself, not what it names.
                let is_folder = path.symlink_metadata().is_ok_and(|data| data.is_dir());
                let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(|error| RunError::path(&path, format!("cannot be removed: {error}")))?;
            }
        }
        Ok(())
    }
}

fn is_incidental(name: &OsStr) -> bool {
    INCIDENTAL.iter().any(|incidental| name == *incidental)
}

/// Checks that files can be made in a folder, by making one. `option` is what the error proposes to choose another one.
pub(super) fn check_can_write(folder: &Path, option: &str) -> Result<(), RunError> {
    let probe = folder.join(format!(".tmp-{}", std::process::id()));
    let made = fs::create_dir(&probe).and_then(|()| fs::remove_dir(&probe));
    made.map_err(|error| {
        let problem =
            format!("cannot be written to: {error}; change its permissions, or choose another folder with {option}");
        RunError::path(folder, problem)
    })
}

/// Prefixes of the temporary names that [`RunFolder`] and [`write_whole`] use.
const UNFINISHED: [&str; 3] = [".tmp", ".checkpoint-", ".replaced-"];

/// Writes a file under a temporary name next to it and renames it.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), RunError> {
    let written = files::write_whole(path, content);
    written.map_err(|error| RunError::path(path, format!("cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        RunFolder::check(Some(&path), false).unwrap().create().unwrap();
        assert!(RunFolder::check(Some(&path), false).is_ok());
        fs::write(path.join("x"), "y").unwrap();
        let error = RunFolder::check(Some(&path), false).unwrap_err();
        assert!(
            matches!(&error, RunError::Path { path: at, problem } if *at == path && problem.contains("--overwrite"))
        );
        assert!(RunFolder::check(Some(&path), true).is_ok());
        let error = RunFolder::check(Some(&path.join("x")), true).unwrap_err();
        assert!(matches!(&error, RunError::Path { path: at, .. } if *at == path.join("x")));
        assert!(RunFolder::check(None, true).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn two_runs_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let output = RunFolder::check(Some(folder.path()), false).unwrap();
        let first = output.lock().unwrap();
        assert!(first.0.is_some());
        assert!(output.lock().unwrap_err().to_string().contains(&folder.path().display().to_string()));
        drop(first);
        assert!(output.lock().unwrap().0.is_some());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_checkpoint_that_was_about_to_be_replaced_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunFolder::at(Some(folder.path())).unwrap();
        for name in [".replaced-x/folder", ".checkpoint-y"] {
            fs::create_dir_all(run.file(name)).unwrap();
            fs::write(run.file(name).join("model"), name).unwrap();
        }
        run.remove(&[]).unwrap();
        assert_eq!(fs::read_to_string(run.file("checkpoint/model")).unwrap(), ".replaced-x/folder");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_appears_whole_and_replaces_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let output = RunFolder::check(Some(folder.path()), false).unwrap();
        let fill = |name: &'static str| move |path: &Path| write_whole(&path.join(name), b"content");
        output.write_folder("checkpoint", fill("a")).unwrap();
        output.write_folder("checkpoint", fill("b")).unwrap();
        assert!(!output.file("checkpoint").join("a").exists() && output.file("checkpoint").join("b").exists());
        output
            .write_folder("checkpoint", |path| fill("c")(path).and_then(|()| Err(RunError::path(path, "no"))))
            .unwrap_err();
        assert!(output.file("checkpoint").join("b").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
