//! TensorBoard event files: TFRecord framing (length, masked CRC32C of the length, bytes, masked CRC32C of the bytes)
//! around `Event` messages with scalar summaries (`tensorboard/compat/proto/{event,summary}.proto`). TensorBoard reads
//! the files of a folder in the order of their names. A resumed run starts a new file with a session start, and
//! TensorBoard then hides the later steps of the earlier files.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use prost::Message;
use serde::Serialize;

use super::numbers::numbers;
use crate::error::RunError;

const PREFIX: &str = "events.out.tfevents.";

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Scalar>,
}

/// `Summary.Value` with its `simple_value`.
#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    // `optional`, because 0 is a value here and must be written.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(enumeration = "SessionStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
enum SessionStatus {
    Unspecified = 0,
    Start = 1,
}

/// Writes scalars for TensorBoard. Every call writes whole records.
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Starts an event file in `folder` for a run that has made `done` steps (0 for a new run). Creates the folder if
    /// it is missing. TensorBoard hides steps after `done` in earlier files of the folder.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read or the file cannot be written.
    ///
    /// ```
    /// use fieldmark::log::TensorBoard;
    /// let folder = tempfile::tempdir()?;
    /// let mut board = TensorBoard::create(folder.path(), 0)?;
    /// board.scalar("loss", 1, 2.5)?;
    /// board.scalars("sft", 1, &serde_json::json!({ "lr": 1e-6, "grad": { "norm": 0.5 } }))?; // sft/lr, sft/grad/norm
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(folder: impl AsRef<Path>, done: usize) -> Result<Self, RunError> {
        let folder = folder.as_ref();
        let (path, file) = begin(folder).map_err(|source| RunError::Io { path: folder.to_path_buf(), source })?;
        let mut board = Self { path, file };
        board.write(0, What::FileVersion("brain.Event:2".into()))?;
        board.write(done + 1, What::SessionLog(SessionLog { status: SessionStatus::Start.into() }))?;
        Ok(board)
    }

    /// Writes one value of the curve `tag`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn scalar(&mut self, tag: &str, step: usize, value: f64) -> Result<(), RunError> {
        self.write(step, What::Summary(Summary { value: vec![scalar(tag.into(), value)] }))
    }

    /// Writes the [`numbers`] of a row. Their names start with `prefix/`.
    ///
    /// # Errors
    /// Returns an error if the row cannot be written as JSON, or if the file cannot be written.
    pub fn scalars(&mut self, prefix: &str, step: usize, row: &impl Serialize) -> Result<(), RunError> {
        let numbers = numbers(row)?.into_iter();
        let value: Vec<_> = numbers.map(|(name, value)| scalar(format!("{prefix}/{name}"), value)).collect();
        if value.is_empty() { Ok(()) } else { self.write(step, What::Summary(Summary { value })) }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn write(&mut self, step: usize, what: What) -> Result<(), RunError> {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let event = Event { wall_time: now().as_secs_f64(), step, what: Some(what) };
        // One write per record, so that a killed run leaves at most the last record incomplete.
        let written = self.file.write_all(&record(&event.encode_to_vec()));
        written.map_err(|source| RunError::Io { path: self.path.clone(), source })
    }
}

fn scalar(tag: String, value: f64) -> Scalar {
    Scalar { tag, simple_value: Some(value as f32) }
}

/// Creates a file whose name sorts after all event files in the folder.
fn begin(folder: &Path) -> io::Result<(PathBuf, File)> {
    fs::create_dir_all(folder)?;
    let mut seconds = now().as_secs();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let taken = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse::<u64>().ok());
        seconds = seconds.max(taken.map_or(0, |taken| taken.saturating_add(1)));
    }
    loop {
        let path = folder.join(format!("{PREFIX}{seconds:010}.fieldmark.{}.0", std::process::id()));
        match OpenOptions::new().append(true).create_new(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => seconds += 1,
            opened => return opened.map(|file| (path, file)),
        }
    }
}

fn now() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(data.len() + 16);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&masked_crc(&length).to_le_bytes());
    bytes.extend_from_slice(data);
    bytes.extend_from_slice(&masked_crc(data).to_le_bytes());
    bytes
}

/// TFRecord masks checksums, because the data may itself contain checksums.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC32C bit by bit, from its polynomial.
    fn slow_crc(data: &[u8]) -> u32 {
        !data.iter().fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 * (crc & 1)))
        })
    }

    fn slow_masked(data: &[u8]) -> u32 {
        slow_crc(data).rotate_right(15).wrapping_add(0xa282_ead8)
    }

    /// The payloads of a file of records. Checks both checksums of each.
    fn payloads(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!(u32::from_le_bytes(bytes[8..12].try_into().unwrap()), slow_masked(&bytes[..8]));
            let data = &bytes[12..12 + length];
            assert_eq!(u32::from_le_bytes(bytes[12 + length..16 + length].try_into().unwrap()), slow_masked(data));
            found.push(data.to_vec());
            bytes = &bytes[16 + length..];
        }
        found
    }

    /// The fields of a protobuf message as raw bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    return value;
                }
            }
            unreachable!()
        }
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let length = match key & 7 {
                0 => {
                    found.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                5 => 4,
                kind => panic!("wire type {kind}"),
            };
            found.push((key >> 3, bytes[..length].to_vec()));
            bytes = &bytes[length..];
        }
        found
    }

    /// The steps with their content: a version, a session status, or tags and values.
    fn events(path: &Path) -> Vec<(i64, String)> {
        let message = |data: Vec<u8>| {
            let (mut step, mut what) = (0, String::new());
            for (field, data) in fields(&data) {
                match field {
                    1 => assert!(f64::from_le_bytes(data.try_into().unwrap()) > 1.7e9),
                    2 => step = i64::from_le_bytes(data.try_into().unwrap()),
                    3 => what = String::from_utf8(data).unwrap(),
                    5 => {
                        what = fields(&data).into_iter().map(|(_, value)| text_of(&value)).collect::<Vec<_>>().join(" ")
                    }
                    7 => what = format!("session {:?}", fields(&data)[0].1[0]),
                    other => panic!("field {other}"),
                }
            }
            (step, what)
        };
        payloads(&fs::read(path).unwrap()).into_iter().map(message).collect()
    }

    fn text_of(value: &[u8]) -> String {
        let [(1, tag), (2, number)] = &fields(value)[..] else { panic!("{value:?}") };
        let number = f32::from_le_bytes(number.as_slice().try_into().unwrap());
        format!("{}={number}", String::from_utf8(tag.clone()).unwrap())
    }

    #[test]
    fn checksums_have_their_published_values() {
        // RFC 3720, B.4; then the common check value, and the length of 24 at the start of TensorFlow's files.
        for (data, crc) in [([0_u8; 32], 0x8a91_36aa), ([0xff; 32], 0x62a8_ab43)] {
            assert_eq!((crc32c::crc32c(&data), slow_crc(&data)), (crc, crc));
            assert_eq!(masked_crc(&data), slow_masked(&data));
        }
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_crc(&24_u64.to_le_bytes()), 0x224b_7fa3);
    }

    #[test]
    fn every_record_reads_back_byte_by_byte() {
        let folder = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::create(folder.path().join("deep/er"), 0).unwrap();
        board.scalar("loss", 1, 2.5).unwrap();
        board.scalar("zero", 300, 0.0).unwrap();
        let row = serde_json::json!({
            "step": 2, "lr": 1e-6, "none": null, "name": "x", "list": [1], "yes": true, "parts": { "kl": -0.5, "deep": { "n": 3 } },
        });
        board.scalars("sft", 2, &row).unwrap();
        board.scalars("sft", 3, &serde_json::json!({ "step": 3, "loss": f64::NAN })).unwrap();
        let expected = [
            (0, "brain.Event:2"),
            (1, "session 1"),
            (1, "loss=2.5"),
            (300, "zero=0"),
            (2, "sft/lr=0.000001 sft/parts/kl=-0.5 sft/parts/deep/n=3"),
        ];
        assert_eq!(events(board.path()), expected.map(|(step, what)| (step, what.to_owned())));
    }

    #[test]
    fn a_resumed_run_begins_a_later_file_with_the_step_that_it_does_again() {
        let folder = tempfile::tempdir().unwrap();
        // A file from a wrong clock, with a name that sorts after this process's files.
        let mut paths = vec![folder.path().join("events.out.tfevents.9000000000.z.9.9")];
        fs::write(&paths[0], "").unwrap();
        for done in [0, 0, 4, 9] {
            let mut board = TensorBoard::create(folder.path(), done).unwrap();
            board.scalar("loss", done + 1, 1.0).unwrap();
            paths.push(board.path().to_path_buf());
        }
        assert!(paths.is_sorted() && paths[3] != paths[4]);
        let expected = [(0, "brain.Event:2"), (5, "session 1"), (5, "loss=1")];
        assert_eq!(events(&paths[3]), expected.map(|(step, what)| (step, what.to_owned())));
        assert_eq!(events(&paths[1]).len(), 3);
    }

    #[test]
    fn a_file_in_the_folders_place_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join("taken");
        fs::write(&taken, "").unwrap();
        let error = TensorBoard::create(&taken, 0).unwrap_err().to_string();
        assert!(error.contains("taken: "), "{error}");
    }
}
