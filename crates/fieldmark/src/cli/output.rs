//! What a run leaves behind: a folder that is not written over by accident, in which every file appears whole.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{anyhow, bail};

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
        let path = path.filter(|path| !path.as_os_str().is_empty());
        let path = path.ok_or_else(|| anyhow!("no output folder; name one with --set output=DIR or in the recipe"))?;
        if path.exists() && !path.is_dir() {
            bail!("{}: is no folder; name another with --set output=DIR", path.display());
        }
        let mut inside = match fs::read_dir(path) {
            Ok(inside) => inside,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self { path: path.into() }),
            Err(error) => bail!("{}: {error}", path.display()),
        };
        if inside.next().is_some() && !overwrite {
            bail!("{}: is not empty; name another with --set output=DIR, or add --overwrite", path.display());
        }
        Ok(Self { path: path.into() })
    }

    /// Makes the folder.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn create(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.path).map_err(|error| anyhow!("{}: cannot be made: {error}", self.path.display()))
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

    /// Writes a folder in it through `fill`; it has its name once `fill` is through, in place of an older one.
    ///
    /// # Errors
    /// Those of `fill`, and if the folder cannot be written.
    pub fn write_folder(&self, name: &str, fill: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<PathBuf> {
        let target = self.file(name);
        let failed = |error: std::io::Error| anyhow!("{}: cannot be written: {error}", target.display());
        let prefix = format!(".{name}-");
        let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(&self.path).map_err(failed)?;
        fill(made.path())?;
        set_mode(made.path(), 0o755).map_err(failed)?;
        if target.exists() {
            fs::remove_dir_all(&target).map_err(failed)?;
        }
        fs::rename(made.path(), &target).map_err(failed)?;
        // It has moved: there is nothing left to remove.
        let _ = made.keep();
        Ok(target)
    }
}

/// Writes a file under a temporary name beside it and renames it.
///
/// # Errors
/// If it cannot be written.
pub fn write_whole(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let failed = |error: std::io::Error| anyhow!("{}: cannot be written: {error}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    temporary.write_all(content).map_err(failed)?;
    set_mode(temporary.path(), 0o644).map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Temporary files are the owner's alone; finished ones are as ordinary files are.
#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_path: &Path, _mode: u32) -> std::io::Result<()> {
    Ok(())
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
