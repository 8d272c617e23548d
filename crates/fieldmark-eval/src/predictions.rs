//! Predictions: one JSON object per line with the question, the settings of the run and the raw output, or why the
//! question could not be asked. Every answer is in the file as soon as its batch is answered.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use fieldmark_generate::Sampling;
use serde::{Deserialize, Serialize};

use crate::error::EvalError;
use crate::question::Question;

/// The settings of a run, which every row repeats.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSettings {
    /// The name of the model in reports (its folder, or "base").
    pub model: String,
    /// The minimum number of pixels of an image after resizing.
    pub min_pixels: usize,
    /// The maximum number of pixels of an image after resizing.
    pub max_pixels: usize,
    /// The float type of the weights during computation ("f32").
    pub dtype: String,
    /// The device ("flex").
    pub device: String,
    /// Whether photographs were turned as their EXIF orientation says.
    pub exif_honoured: bool,
    /// How transparency was treated ("drop" or "white").
    pub alpha: String,
    /// How tokens were chosen: temperature (0 is greedy), top-k, top-p and the repetition penalty (1 is none).
    #[serde(flatten)]
    pub sampling: Sampling,
    /// The seed of the random streams; it has no effect on greedy decoding.
    pub seed: u64,
    /// The maximum number of tokens of an output.
    pub max_new_tokens: usize,
}

/// One answered question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The question.
    #[serde(flatten)]
    pub question: Question,
    /// The settings.
    #[serde(flatten)]
    pub settings: RunSettings,
    /// The unchanged output, without special tokens.
    pub output: String,
    /// The number of tokens of the output, including the end token.
    pub output_tokens: usize,
    /// Whether the output ended with an end token, rather than at the length limit.
    pub finished: bool,
    /// Why the question could not be asked, such as a damaged photograph. The output is then empty and counts as wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Appends predictions to a file, each batch as soon as it is answered. A process that is killed leaves whole lines and
/// perhaps a last one that is cut short, which [`read_predictions`](crate::read_predictions) tells.
#[derive(Debug)]
pub struct PredictionWriter {
    path: PathBuf,
    file: File,
}

impl PredictionWriter {
    /// Starts a file. Replaces an older one, and creates the folder if it is missing.
    ///
    /// # Errors
    /// Returns [`EvalError::Write`] if the folder or the file cannot be created.
    pub fn create(path: &Path) -> Result<Self, EvalError> {
        let write_error = |source| EvalError::Write { file: path.to_path_buf(), source };
        if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
            fs::create_dir_all(folder).map_err(write_error)?;
        }
        let file = File::create(path).map_err(write_error)?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Goes on after the first `length` bytes of a file and removes what follows them.
    ///
    /// # Errors
    /// Returns [`EvalError::Write`] if the file cannot be opened or shortened.
    pub fn go_on(path: &Path, length: u64) -> Result<Self, EvalError> {
        let opened = OpenOptions::new().append(true).open(path);
        let file = opened.and_then(|file| file.set_len(length).map(|()| file));
        let file = file.map_err(|source| EvalError::Write { file: path.to_path_buf(), source })?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Appends rows and waits until they are on disk.
    ///
    /// # Errors
    /// Returns [`EvalError::Write`] if the rows cannot be written.
    pub fn append(&mut self, predictions: &[Prediction]) -> Result<(), EvalError> {
        let written = lines(predictions).and_then(|text| self.file.write_all(text.as_bytes()));
        let written = written.and_then(|()| self.file.sync_data());
        written.map_err(|source| EvalError::Write { file: self.path.clone(), source })
    }
}

/// The lines of a predictions file.
pub(crate) fn lines(predictions: &[Prediction]) -> std::io::Result<String> {
    let mut text = String::new();
    for prediction in predictions {
        text.push_str(&serde_json::to_string(prediction)?);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
pub(crate) mod tests {
    use fieldmark_data::{Aliases, PromptTemplate, Split};

    use super::*;
    use crate::closed_world::OptionOrder;
    use crate::question::World;
    use crate::read::read_predictions;

    /// A prediction with four options "A" to "D", the truth first, or an open-world one.
    pub(crate) fn prediction(
        dataset: &str,
        split: Split,
        world: World,
        row: usize,
        truth: &str,
        output: &str,
    ) -> Prediction {
        let closed = world == World::Closed;
        Prediction {
            question: Question {
                dataset: dataset.into(),
                split,
                world,
                file: None,
                row,
                image_path: format!("{row}.jpg"),
                question: "Which?".into(),
                options: if closed { ["A", "B", "C", "D"].map(str::to_owned).into() } else { vec![] },
                option_order: closed.then_some(OptionOrder::Shuffled { seed: 42 }),
                ground_truth: truth.into(),
                super_category: dataset.into(),
                aliases: Aliases::default(),
                prompt_template: PromptTemplate::EvalClosed,
                system: None,
                prompt: "<image>Which?".into(),
            },
            settings: RunSettings {
                model: "tiny".into(),
                min_pixels: 3136,
                max_pixels: 12_845_056,
                dtype: "f32".into(),
                device: "flex".into(),
                exif_honoured: true,
                alpha: "drop".into(),
                sampling: Sampling { repetition_penalty: 1.05, ..Sampling::greedy() },
                seed: 0,
                max_new_tokens: 2048,
            },
            output: output.into(),
            output_tokens: 7,
            finished: true,
            error: None,
        }
    }

    #[test]
    fn every_row_is_there_as_soon_as_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/folder/predictions.jsonl");
        let mut rows = [
            prediction("bird", Split::Seen, World::Closed, 1, "A", "<answer>\"é\n\u{1}</answer>"),
            prediction("bird", Split::Unseen, World::Open, 2, "A", ""),
        ];
        rows[1].question.aliases.add("A", ["Alpha"]);
        rows[1].error = Some("no photograph".into());
        let mut writer = PredictionWriter::create(&path).unwrap();
        let mut text = String::new();
        for n in 1..=2 {
            writer.append(&rows[n - 1..n]).unwrap();
            assert_eq!(read_predictions(&path).unwrap().rows, rows[..n]);
            text = fs::read_to_string(&path).unwrap();
            assert_eq!(text.lines().count(), n);
        }
        assert_eq!(text.matches("\"aliases\"").count(), 1);
        assert!(text.contains("\"option_order\":{\"shuffled\":{\"seed\":42}}"), "{text}");
        assert!(text.contains("\"temperature\":0.0") && text.contains("\"repetition_penalty\":1.05"), "{text}");
        // A question that was asked has no error, and a set of one file needs no name of the file.
        assert!(!text.lines().next().unwrap().contains("\"error\"") && !text.contains("\"file\""), "{text}");

        let first = text.lines().next().unwrap().len() as u64 + 1;
        PredictionWriter::go_on(&path, first).unwrap().append(&rows[1..]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn an_impossible_place_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = PredictionWriter::create(&file.join("p.jsonl")).unwrap_err();
        assert!(matches!(&error, EvalError::Write { file, .. } if file.ends_with("file/p.jsonl")), "{error}");
        assert!(error.to_string().contains("p.jsonl"), "{error}");
    }
}
