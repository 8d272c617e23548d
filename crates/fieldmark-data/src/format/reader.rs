//! Rows of JSON: an array or JSONL lines, plain or gzipped. The content decides, not the file's name.
//! Rows count from 1: the line of a JSONL file, the element of an array.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::text;
use crate::error::{DataError, RowProblem};

/// How large a file may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// The largest size in bytes after unpacking, so that a small archive cannot fill the memory.
    pub max_bytes: u64,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { max_bytes: 1 << 30 }
    }
}

/// The form of a file of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One JSON array of objects.
    Array,
    /// One JSON object per line; blank lines are skipped.
    Lines,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The line (JSONL) or element (JSON array), counted from 1.
    pub row: usize,
    /// The value, not checked yet.
    pub value: Value,
}

/// The rows of one file. A bad line of JSONL is an error among them.
#[derive(Debug)]
pub struct Records {
    /// The file.
    pub file: PathBuf,
    /// Its form.
    pub layout: Layout,
    /// True if the file is gzipped.
    pub gzipped: bool,
    /// The rows in order.
    pub rows: Vec<Result<Record, DataError>>,
}

/// Reads all rows of a JSON or JSONL file, plain or gzipped.
///
/// # Errors
/// Returns [`DataError::Read`] if the file is missing or truncated, [`DataError::TooLarge`] if it is over the limit,
/// and [`DataError::File`] if it is neither UTF-8 nor UTF-16, or not rows of JSON. A bad line of JSONL is only an error in
/// [`Records::rows`].
pub fn read_records(path: &Path, limits: ReadLimits) -> Result<Records, DataError> {
    let (text, gzipped) = read_text(path, limits)?;
    parse_records(path, &text, gzipped)
}

/// Parses the text of the file `path`.
pub(crate) fn parse_records(path: &Path, text: &str, gzipped: bool) -> Result<Records, DataError> {
    let text = text.trim_start_matches('\u{feff}');
    let (layout, rows) = match text.trim_start().as_bytes().first() {
        None => (Layout::Lines, Vec::new()),
        Some(b'[') => (Layout::Array, array_rows(path, text)?),
        Some(b'{') => (Layout::Lines, line_rows(path, text)?),
        Some(_) => {
            return Err(DataError::file(
                path,
                "neither a JSON array nor lines of JSON objects; give a .json or .jsonl file, plain or gzipped",
            ));
        }
    };
    Ok(Records { file: path.to_path_buf(), layout, gzipped, rows })
}

/// Reads the text of a file; unpacks it if it is gzipped. Returns true with the text if it was.
///
/// # Errors
/// Returns the errors of [`read_records`].
pub(crate) fn read_text(path: &Path, limits: ReadLimits) -> Result<(String, bool), DataError> {
    let read_error = |source| DataError::Read { file: path.to_path_buf(), source };
    let mut file = File::open(path).map_err(read_error)?;
    if file.metadata().map_err(read_error)?.is_dir() {
        return Err(DataError::file(path, "this is a folder; name a file inside it"));
    }
    let mut head = Vec::with_capacity(HEAD);
    Read::by_ref(&mut file).take(HEAD as u64).read_to_end(&mut head).map_err(read_error)?;
    if let Some(problem) = other_format(&head) {
        return Err(DataError::file(path, problem));
    }
    let gzipped = head.starts_with(&[0x1f, 0x8b]);
    let all = head.as_slice().chain(file);
    let mut bytes = Vec::new();
    let limit = limits.max_bytes.saturating_add(1);
    if gzipped {
        MultiGzDecoder::new(all).take(limit).read_to_end(&mut bytes)
    } else {
        all.take(limit).read_to_end(&mut bytes)
    }
    .map_err(read_error)?;
    if bytes.len() as u64 > limits.max_bytes {
        return Err(DataError::TooLarge { file: path.to_path_buf(), limit: limits.max_bytes });
    }
    let text = text::decode(bytes).map_err(|problem| DataError::file(path, problem))?;
    Ok((text, gzipped))
}

/// The number of bytes that tell the files of other programs.
const HEAD: usize = 32;

/// What to do with a file that begins like one of another program's.
fn other_format(head: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 6] = [
        (
            b"version https://git-lfs",
            "this is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder, or download the file again",
        ),
        (b"PAR1", "Parquet files are not supported; convert it to JSONL"),
        (b"ARRO", "Arrow files are not supported; convert it to JSONL"),
        (
            b"PK\x03\x04",
            "this is an Excel file or another ZIP archive; save a table as \"CSV UTF-8\", or unpack the archive",
        ),
        (b"\xd0\xcf\x11\xe0", "this is an old Excel file; save the table as \"CSV UTF-8\""),
        (b"\x28\xb5\x2f\xfd", "files packed by zstd are not supported; unpack it, or pack it with gzip"),
    ];
    known.into_iter().find(|(start, _)| head.starts_with(start)).map(|(_, problem)| problem)
}

fn array_rows(path: &Path, text: &str) -> Result<Vec<Result<Record, DataError>>, DataError> {
    let values: Vec<Value> = serde_json::from_str(text).map_err(|error| {
        DataError::file(path, format!("not a JSON array ({error}); correct the file or write one object per line"))
    })?;
    let rows = values.into_iter().enumerate();
    Ok(rows.map(|(index, value)| Ok(Record { row: index + 1, value })).collect())
}

fn line_rows(path: &Path, text: &str) -> Result<Vec<Result<Record, DataError>>, DataError> {
    let lines = text.lines().enumerate();
    let rows: Vec<_> = lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(index, line)| {
            let row = index + 1;
            match serde_json::from_str(line) {
                Ok(value) => Ok(Record { row, value }),
                Err(error) => Err(DataError::row(path, row, RowProblem::NotJson(error.to_string()))),
            }
        })
        .collect();
    // A pretty-printed object fails on every line; one error about the file says more than an error per line.
    if rows.first().is_some_and(Result::is_err) && serde_json::from_str::<Value>(text).is_ok() {
        return Err(DataError::file(
            path,
            "one JSON object over several lines; write an array of objects or one object per line",
        ));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn numbers(records: &Records) -> Vec<(usize, i64)> {
        let rows = records.rows.iter().flatten();
        rows.map(|record| (record.row, record.value["a"].as_i64().unwrap())).collect()
    }

    #[test]
    fn the_content_decides_the_form() {
        for (text, layout, rows) in [
            (" [{\"a\":1},\n{\"a\":2}]", Layout::Array, [(1, 1), (2, 2)]),
            ("{\"a\":1}\n\n{\"a\":2}\n", Layout::Lines, [(1, 1), (3, 2)]),
            ("\u{feff}{\"a\":1}\r\n{\"a\":2}", Layout::Lines, [(1, 1), (2, 2)]),
            ("{\"a\":1}\r\n{\"a\":2}\r\n\u{1a}\r\n", Layout::Lines, [(1, 1), (2, 2)]),
            ("[{\"a\":1},{\"a\":2}]\u{1a}", Layout::Array, [(1, 1), (2, 2)]),
        ] {
            for gzipped in [false, true] {
                let bytes = if gzipped { gzip(text.as_bytes()) } else { text.as_bytes().to_vec() };
                let file = file(&bytes);
                let records = read_records(file.path(), ReadLimits::default()).unwrap();
                assert_eq!((records.layout, records.gzipped), (layout, gzipped));
                assert_eq!(numbers(&records), rows);
            }
        }
    }

    #[test]
    fn a_bad_line_is_one_error_with_its_line() {
        let file = file(b"{\"a\":1}\n{\"a\":\n{\"a\":3}\n");
        let records = read_records(file.path(), ReadLimits::default()).unwrap();
        assert_eq!(numbers(&records), [(1, 1), (3, 3)]);
        let error = records.rows[1].as_ref().unwrap_err();
        assert!(matches!(error, DataError::Row { row: 2, problem: RowProblem::NotJson(_), .. }), "{error}");
        assert!(error.to_string().starts_with(&format!("{}:2: ", file.path().display())), "{error}");
    }

    #[test]
    fn unreadable_files_are_named() {
        let limits = ReadLimits { max_bytes: 8 };
        let packed = gzip(b"{\"a\":1}\n{\"a\":2}\n");
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
        let error = read_records(file(pointer).path(), limits).unwrap_err().to_string();
        assert!(error.contains("git lfs pull"), "{error}");
        let cases: [(&[u8], bool); 7] = [
            (b"{\"a\":1}\n{", true),
            (&packed, true),
            (b"\xff\xd8\xff", false),
            (b"PAR1", false),
            (b"PK\x03\x04", false),
            (b"a,b\n", false),
            (b"{\n\"a\":1}", false),
        ];
        for (bytes, too_large) in cases {
            let file = file(bytes);
            let error = read_records(file.path(), limits).unwrap_err();
            match too_large {
                true => assert!(matches!(error, DataError::TooLarge { limit: 8, .. }), "{error}"),
                false => assert!(matches!(error, DataError::File { .. }), "{error}"),
            }
            assert!(error.to_string().starts_with(&file.path().display().to_string()));
        }
        let truncated = file(&packed[..packed.len() - 12]);
        let truncated = read_records(truncated.path(), ReadLimits::default()).unwrap_err();
        assert!(matches!(truncated, DataError::Read { .. }), "{truncated}");
        let missing = read_records(Path::new("no/such.json"), limits).unwrap_err();
        assert!(matches!(missing, DataError::Read { .. }));
        let exact = file(b"{\"a\":10}");
        assert!(read_records(exact.path(), limits).is_ok());
    }
}
