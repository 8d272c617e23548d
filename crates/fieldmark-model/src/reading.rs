//! Reads the files of a checkpoint that somebody else wrote. What only stands in for a file is refused by name: a Git LFS
//! pointer, a link to nothing, or the web page that a failed download left.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::error::ModelError;

/// Number of bytes that show whether a file only stands in for another.
const START: u64 = 256;

/// Reads a file.
///
/// # Errors
/// Returns [`ModelError::Io`], or [`ModelError::Refused`] if the file only stands in for the real one.
pub fn bytes(path: &Path) -> Result<Vec<u8>, ModelError> {
    let bytes = std::fs::read(path).map_err(|error| unread(path, error))?;
    refuse_stand_in(path, &bytes)?;
    Ok(bytes)
}

/// Reads a text file, without the byte order mark that Windows begins it with.
///
/// # Errors
/// Returns the errors of [`bytes`], and [`ModelError::Io`] if the file is not UTF-8.
pub fn text(path: &Path) -> Result<String, ModelError> {
    let not_utf8 = |error| ModelError::io(path)(std::io::Error::new(std::io::ErrorKind::InvalidData, error));
    let text = String::from_utf8(bytes(path)?).map_err(not_utf8)?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Reads a JSON file. `what` names the expected kind of file, such as `shard index`.
///
/// # Errors
/// Returns the errors of [`text`], and [`ModelError::Json`] if the text is not JSON.
pub fn json(path: &Path, what: &'static str) -> Result<Value, ModelError> {
    let text = text(path)?;
    serde_json::from_str(&text).map_err(|error| ModelError::Json { path: path.into(), what, reason: error.to_string() })
}

/// Says what the content of a file is if it only stands in for the real one. Its first hundred bytes are enough.
pub fn stand_in(content: &[u8]) -> Option<&'static str> {
    let start = content.trim_ascii_start();
    let begins = |with: &[u8]| start.len() >= with.len() && start[..with.len()].eq_ignore_ascii_case(with);
    if begins(b"version https://git-lfs") || begins(b"version https://hawser") {
        Some("is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder, or download the file again")
    } else if begins(b"<!doctype html") || begins(b"<html") {
        Some("is a web page, not the file itself: a download failed; download the file again")
    } else {
        None
    }
}

/// Checks the beginning of a file that is read later, and may be large.
///
/// # Errors
/// Returns the errors of [`bytes`].
pub(crate) fn check(path: &Path) -> Result<(), ModelError> {
    let (mut start, file) = (Vec::new(), File::open(path).map_err(|error| unread(path, error))?);
    file.take(START).read_to_end(&mut start).map_err(ModelError::io(path))?;
    refuse_stand_in(path, &start)
}

/// Checks that no file of a checkpoint in `folder` is a link to nothing, which would else be taken for a file that is not
/// there. A folder that cannot be listed has none.
///
/// # Errors
/// Returns [`ModelError::Refused`], which names the first such link and where it leads.
pub fn refuse_dangling(folder: &Path) -> Result<(), ModelError> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| ["json", "jinja", "safetensors", "txt", "model"].contains(&ending))
    };
    let mut dangling: Vec<PathBuf> = entries.filter(ours).filter(|path| is_dangling(path)).collect();
    dangling.sort();
    let Some(first) = dangling.first() else { return Ok(()) };
    Err(ModelError::refused(first, to_nothing(first, dangling.len())))
}

/// Whether `path` is a link whose target is not there.
fn is_dangling(path: &Path) -> bool {
    path.is_symlink() && !path.exists()
}

fn unread(path: &Path, error: std::io::Error) -> ModelError {
    if is_dangling(path) { ModelError::refused(path, to_nothing(path, 1)) } else { ModelError::io(path)(error) }
}

fn to_nothing(path: &Path, count: usize) -> String {
    let target = std::fs::read_link(path).unwrap_or_default();
    let others =
        if count > 1 { format!(", and so are {} other files in its folder", count - 1) } else { String::new() };
    format!(
        "is a link to {}, which is not there{others}; a copied cache of Hugging Face lacks its folder `blobs`: download the \
         files again, or copy them from the whole cache with `cp -rL`",
        target.display()
    )
}

pub(crate) fn refuse_stand_in(path: &Path, content: &[u8]) -> Result<(), ModelError> {
    stand_in(content).map_or(Ok(()), |problem| Err(ModelError::refused(path, problem)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_order_mark_is_not_part_of_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, "\u{feff}{\"a\": 1}").unwrap();
        assert_eq!(json(&path, "configuration").unwrap()["a"], 1);
        assert!(text(&path).unwrap().starts_with('{'));
    }

    #[test]
    #[cfg(unix)]
    fn a_link_to_nothing_is_named_with_its_target() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("config.json"), "{}").unwrap();
        symlink(at("config.json"), at("other.json")).unwrap();
        symlink(at("absent"), at("README.md")).unwrap();
        refuse_dangling(folder.path()).unwrap();
        refuse_dangling(&at("absent")).unwrap();
        symlink(at("blobs/1f2e"), at("tokenizer.json")).unwrap();
        symlink(at("blobs/3d4c"), at("model.safetensors")).unwrap();
        let named = |error: ModelError, name: &str, target: &str| match error {
            ModelError::Refused { path, problem } => {
                assert!(path == at(name) && problem.contains(target), "{problem}");
                problem
            }
            other => panic!("{other}"),
        };
        let said = named(refuse_dangling(folder.path()).unwrap_err(), "model.safetensors", "blobs/3d4c");
        assert!(said.contains(" 1 other"), "{said}");
        named(bytes(&at("tokenizer.json")).unwrap_err(), "tokenizer.json", "blobs/1f2e");
        named(check(&at("tokenizer.json")).unwrap_err(), "tokenizer.json", "blobs/1f2e");
    }

    #[test]
    fn what_stands_in_for_a_file_is_refused_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        for (content, named) in [
            ("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7031645\n", "git lfs pull"),
            ("\n<!DOCTYPE html><html></html>", "web page"),
        ] {
            std::fs::write(&path, content).unwrap();
            for error in [bytes(&path).unwrap_err(), json(&path, "tokenizer").unwrap_err()] {
                assert!(
                    matches!(&error, ModelError::Refused { path: at, problem } if *at == path && problem.contains(named))
                );
            }
        }
        std::fs::write(&path, "{\"version\": \"https://git-lfs\"}").unwrap();
        assert_eq!(json(&path, "tokenizer").unwrap()["version"], "https://git-lfs");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(text(&path), Err(ModelError::Io { path: at, .. }) if at == path));
    }
}
