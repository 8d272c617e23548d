//! Files and folders that appear completely or not at all: each is written under a temporary name, then renamed.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use tempfile::{NamedTempFile, TempDir};

/// Writes `bytes` to `path` and replaces an existing file.
///
/// # Errors
/// Returns the operating system's error; `path` is then unchanged.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = parent(path);
    let temporary = NamedTempFile::new_in(folder)?;
    std::fs::write(temporary.path(), bytes)?;
    persist(temporary, path)
}

/// Renames a finished temporary file to `path`, readable by all users like an ordinary file.
///
/// # Errors
/// Returns the operating system's error; `path` is then unchanged.
pub fn persist(temporary: NamedTempFile, path: &Path) -> io::Result<()> {
    set_mode(temporary.path(), 0o644)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map(drop).map_err(|error| error.error)
}

/// Flushes a finished temporary folder to disk, then renames it to `path` and replaces an existing folder. If the
/// machine stops in between, `path` is the new folder, the old folder or absent, but never incomplete.
///
/// # Errors
/// Returns the operating system's error.
pub fn persist_folder(temporary: TempDir, path: &Path) -> io::Result<()> {
    set_mode(temporary.path(), 0o755)?;
    sync_folder(temporary.path())?;
    let replaced = if path.exists() {
        let aside = tempfile::Builder::new().prefix(".replaced-").tempdir_in(parent(path))?;
        fs::rename(path, aside.path().join("folder"))?;
        Some(aside)
    } else {
        None
    };
    fs::rename(temporary.path(), path)?;
    // The folder has moved, so the guard has nothing to remove.
    let _ = temporary.keep();
    sync(parent(path))?;
    replaced.map_or(Ok(()), TempDir::close)
}

/// Flushes a folder and everything in it to disk.
fn sync_folder(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { sync_folder(&path)? } else { sync(&path)? }
    }
    sync(folder)
}

#[cfg(unix)]
fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Other systems flush only files that are open for writing, and no folders.
#[cfg(not(unix))]
fn sync(path: &Path) -> io::Result<()> {
    if path.is_dir() { Ok(()) } else { File::options().write(true).open(path)?.sync_all() }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Temporary files are private to their owner; finished files have the mode of ordinary files.
#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_readable_by_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for text in ["a longer first text", "second"] {
            write_whole(&path, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made");
        for name in ["a", "b"] {
            let temporary = tempfile::tempdir_in(folder.path()).unwrap();
            fs::create_dir(temporary.path().join("inner")).unwrap();
            fs::write(temporary.path().join("inner").join(name), name).unwrap();
            persist_folder(temporary, &path).unwrap();
            let names: Vec<_> =
                fs::read_dir(path.join("inner")).unwrap().map(|file| file.unwrap().file_name()).collect();
            assert_eq!(names, [name]);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        std::fs::create_dir_all(taken.join("inner")).unwrap();
        assert!(write_whole(&taken, b"text").is_err());
        assert!(write_whole(&folder.path().join("absent/file"), b"text").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
