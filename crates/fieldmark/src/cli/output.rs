//! What a run leaves behind: a folder that is not written over by accident, in which every file appears whole.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{anyhow, bail};
use fieldmark::model::files::{self, persist_folder};

/// The folder of a run.
#[derive(Debug, Clone)]
pub struct OutputFolder {
    path: PathBuf,
}

impl OutputFolder {
    /// Checks that a run may write into `path`, without making it.
    ///
    /// # Errors
    /// No path, a file in its place, or a folder with something in it and no `overwrite`.
    pub fn check(path: Option<&Path>, overwrite: bool) -> anyhow::Result<Self> {
        let output = Self::at(path)?;
        if !overwrite && !output.is_empty()? {
            bail!("{}: is not empty; name another with --set output=DIR, or add --overwrite", output.path.display());
        }
        Ok(output)
    }

    /// The same for a folder that may hold anything.
    ///
    /// # Errors
    /// No path, or a file in its place.
    pub fn at(path: Option<&Path>) -> anyhow::Result<Self> {
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let path = path.ok_or_else(|| anyhow!("no output folder; name one with --set output=DIR or in the recipe"))?;
        if path.exists() && !path.is_dir() {
            bail!("{}: is no folder; name another with --set output=DIR", path.display());
        }
        Ok(Self { path: path.into() })
    }

    /// Whether there is nothing in it, or it is not there.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn is_empty(&self) -> anyhow::Result<bool> {
        match fs::read_dir(&self.path) {
            Ok(mut inside) => Ok(inside.next().is_none()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
            Err(error) => bail!("{}: {error}", self.path.display()),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.path).map_err(|error| anyhow!("{}: cannot be made: {error}", self.path.display()))
    }

    /// Makes the folder its owner's alone until what is returned is dropped, or the process ends. `None` where the system
    /// has no locks on folders.
    ///
    /// # Errors
    /// If another run has it.
    pub fn lock(&self) -> anyhow::Result<Option<File>> {
        let Ok(folder) = File::open(&self.path) else { return Ok(None) };
        match folder.try_lock() {
            Ok(()) => Ok(Some(folder)),
            Err(TryLockError::WouldBlock) => {
                bail!("{}: another run writes into it; name another with --set output=DIR", self.path.display())
            }
            Err(TryLockError::Error(_)) => Ok(None),
        }
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file, which is there whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        write_whole(&self.file(name), content)
    }

    /// Writes a folder in it through `fill`; it has its name once `fill` is through and all of it is on the disk, in place
    /// of an older one.
    ///
    /// # Errors
    /// Those of `fill`, and if the folder cannot be written.
    pub fn write_folder(&self, name: &str, fill: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<PathBuf> {
        let target = self.file(name);
        let failed = |error: std::io::Error| anyhow!("{}: cannot be written: {error}", target.display());
        let prefix = format!(".{name}-");
        let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.path).map_err(failed)?;
        fill(made.path())?;
        persist_folder(made, &target).map_err(failed)?;
        Ok(target)
    }

    /// Removes files and folders in it, as far as they are there, and what a killed run left unfinished.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn remove(&self, names: &[&str]) -> anyhow::Result<()> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => bail!("{}: {error}", self.path.display()),
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let unfinished = UNFINISHED.iter().any(|prefix| name.starts_with(prefix));
            if unfinished || names.contains(&&*name) {
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(|error| anyhow!("{}: cannot be removed: {error}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// How the temporary names begin that [`OutputFolder`] and [`write_whole`] give.
const UNFINISHED: [&str; 3] = [".tmp", ".checkpoint-", ".replaced-"];

/// Writes a file under a temporary name beside it and renames it.
///
/// # Errors
/// If it cannot be written.
pub fn write_whole(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    files::write_whole(path, content).map_err(|error| anyhow!("{}: cannot be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_something_in_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run");
        OutputFolder::check(Some(&path), false).unwrap().create().unwrap();
        assert!(OutputFolder::check(Some(&path), false).is_ok());
        fs::write(path.join("x"), "y").unwrap();
        let error = OutputFolder::check(Some(&path), false).unwrap_err().to_string();
        assert!(error.contains("run: is not empty") && error.contains("--overwrite"), "{error}");
        assert!(OutputFolder::check(Some(&path), true).is_ok());
        assert!(OutputFolder::check(Some(&path.join("x")), true).unwrap_err().to_string().contains("is no folder"));
        assert!(OutputFolder::check(None, true).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn two_runs_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let output = OutputFolder::check(Some(folder.path()), false).unwrap();
        let first = output.lock().unwrap();
        assert!(first.is_some());
        assert!(output.lock().unwrap_err().to_string().contains("another run writes into it"));
        drop(first);
        assert!(output.lock().unwrap().is_some());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_appears_whole_and_replaces_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let output = OutputFolder::check(Some(folder.path()), false).unwrap();
        let fill = |name: &'static str| move |path: &Path| write_whole(&path.join(name), b"content");
        output.write_folder("checkpoint", fill("a")).unwrap();
        output.write_folder("checkpoint", fill("b")).unwrap();
        assert!(!output.file("checkpoint").join("a").exists() && output.file("checkpoint").join("b").exists());
        output.write_folder("checkpoint", |path| fill("c")(path).and_then(|()| bail!("no"))).unwrap_err();
        assert!(output.file("checkpoint").join("b").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
