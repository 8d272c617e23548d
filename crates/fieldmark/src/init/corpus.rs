//! The texts that a new tokenizer is trained on: a UTF-8 file with one text a line.

use std::path::Path;

use crate::error::RunError;

/// Reads a corpus. Empty lines are skipped.
///
/// # Errors
/// Returns an error that names the file, and the line if there is one, if the file cannot be read, is not UTF-8 or holds no
/// text.
pub fn read_corpus(path: &Path) -> Result<Vec<String>, RunError> {
    let bytes = std::fs::read(path).map_err(RunError::io(path))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        RunError::path(path, format!("line {line} is not UTF-8; convert the file to UTF-8"))
    })?;
    // Windows begins a file with a mark that no text has.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let texts: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if texts.is_empty() {
        return Err(RunError::path(path, "holds no text; write one text a line, such as prompts and answers"));
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.txt");
        std::fs::write(&path, "one\r\n\n  two \n").unwrap();
        assert_eq!(read_corpus(&path).unwrap(), ["one", "  two "]);
        std::fs::write(&path, "\u{feff}one\r\ntwo").unwrap();
        assert_eq!(read_corpus(&path).unwrap(), ["one", "two"]);
        for (bytes, named) in [(&b""[..], "no text"), (b" \n\n", "no text"), (b"a\nb\n\xff", "line 3")] {
            std::fs::write(&path, bytes).unwrap();
            let error = read_corpus(&path).unwrap_err().to_string();
            assert!(error.contains("texts.txt") && error.contains(named), "{error}");
        }
        let missing = read_corpus(&folder.path().join("missing.txt")).unwrap_err();
        assert!(matches!(missing, RunError::Io { path, .. } if path.ends_with("missing.txt")));
    }
}
