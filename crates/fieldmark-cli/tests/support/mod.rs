//! A tiny checkpoint with a tokenizer of its own, photographs, and the command itself.
#![allow(dead_code)]

pub mod refusal;
pub mod runs;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt::Debug,
    fs,
    path::PathBuf,
    process::{Command, Output},
    time::SystemTime,
};

use image::{Rgb, RgbImage};
use refusal::Refusal;
use serde_json::{Value, json};

/// A folder with a checkpoint in `model`, the photographs `a.png` to `c.png`, and room for data.
pub struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// The reference's tiny random model under a small tokenizer's ids.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fieldmark_tests::tiny::checkpoint(&folder.path().join("model"));
        for (name, shade, side) in [("a.png", 40, 60), ("b.png", 200, 90), ("c.png", 120, 64)] {
            RgbImage::from_fn(side, 70, |x, y| Rgb([(x * 2) as u8, (y * 3) as u8, shade]))
                .save(folder.path().join(name))
                .unwrap();
        }
        Self { folder }
    }

    /// A path inside.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file inside.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Writes a JSON list of conversations with the default question, answer and image unless `change` says otherwise.
    pub fn conversations(&self, name: &str, rows: usize, change: impl Fn(usize, &mut Value)) {
        let rows: Vec<Value> = (0..rows)
            .map(|row| {
                let image = ["a.png", "b.png", "c.png"][row % 3];
                let mut value = json!({
                    "messages": [
                        { "role": "user", "content": "<image>Which fruit?" },
                        { "role": "assistant", "content": "<think>green</think> <answer>Lime</answer>" },
                    ],
                    "images": [image],
                });
                change(row, &mut value);
                value
            })
            .collect();
        self.write(name, Value::from(rows).to_string());
    }

    /// A recipe for all stages on this place's checkpoint, with small images and short answers.
    pub fn recipe(&self) -> String {
        let file = |name: &str| self.path(name).display().to_string();
        format!(
            "output = {:?}\n[model]\npath = {:?}\n[data.sft]\nfile = {:?}\n[data.tapo]\nfile = {:?}\n\
             [data.sft.sizes]\nresize = \"once\"\nmin_pixels = 3136\nmax_pixels = 6272\n\
             [data.tapo.sizes]\nresize = \"once\"\nmin_pixels = 3136\nmax_pixels = 6272\n\
             [sft]\nepochs = 2\nbatch = 2\nmicro_batch = 1\n[sft.schedule]\nlr = 1e-3\nwarmup = 0\n\
             [tapo]\nepochs = 1\nprompts_per_step = 2\nchunk = 2\nmax_tries = 1\nbatch = 8\nmicro_batch = 4\n\
             anchor_rollouts = 2\npositive_rollouts = 2\nmax_new_tokens = 4\nfilter = {{ low = -1.0, high = 2.0 }}\n\
             schedule = {{ lr = 1e-3 }}\n\
             [eval]\nfiles = [{:?}]\nmax_new_tokens = 4\nmax_pixels = 6272\n",
            file("out"),
            file("model"),
            file("sft.json"),
            file("tapo.jsonl"),
            file("fruit_seen.jsonl"),
        )
    }

    /// Runs the command in this place.
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_fieldmark"))
            .args(args)
            .current_dir(self.folder.path())
            .env_remove("RUST_BACKTRACE")
            .output()
            .unwrap()
    }

    /// Runs it, expects success, and returns what it printed.
    #[track_caller]
    pub fn succeed<S: AsRef<OsStr> + Debug>(&self, args: &[S]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it, expects exit code 2, one error line and that no file is written, changed or removed.
    #[track_caller]
    pub fn refuse<S: AsRef<OsStr> + Debug>(&self, args: &[S]) -> Refusal {
        let before = self.files();
        let refusal = Refusal::of(args, &self.run(args));
        assert!(self.files() == before, "files changed: {refusal:?}");
        refusal
    }

    /// All files inside, with their lengths and the times of their last change.
    fn files(&self) -> BTreeMap<PathBuf, (u64, SystemTime)> {
        let (mut files, mut folders) = (BTreeMap::new(), vec![self.path("")]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let data = fs::metadata(&path).unwrap();
                if data.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path, (data.len(), data.modified().unwrap()));
                }
            }
        }
        files
    }

    /// Names of everything inside.
    pub fn listing(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

/// A TAPO row.
pub fn triplet(images: [&str; 3]) -> Value {
    let [anchor, positive, negative] = images;
    json!({ "problem": "<image>Which?", "answer": "Lime", "anchor": anchor, "positive": positive, "negative": negative })
}

/// An evaluation row.
pub fn question(image: &str, truth: &str) -> Value {
    json!({ "image_path": image, "question": "Which fruit?", "options": ["Lime", "Lemon", "Plum"], "ground_truth": truth })
}

/// The rows of a JSONL file.
pub fn lines(place: &Place, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Names of everything in a folder.
pub fn names(place: &Place, folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(place.path(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// CRC-32 as PNG has it.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
