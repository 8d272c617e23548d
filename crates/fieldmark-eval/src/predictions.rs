//! Predictions: one JSON object per line with the question, the settings of the run and the raw output, or why the
//! question could not be asked. Every answer is in the file as soon as its batch is answered.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fieldmark_data::{ReadLimits, alike_options, normal_form, read_records};
use fieldmark_generate::Sampling;
use serde::{Deserialize, Serialize};

use crate::error::EvalError;
use crate::question::{Question, World};

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

impl Prediction {
    /// Returns the contradiction in a row, if there is one.
    fn problem(&self) -> Option<String> {
        let question = &self.question;
        let truth = normal_form(&question.ground_truth);
        match (question.world, question.option_order) {
            (World::Closed, _) if !question.options.iter().any(|option| normal_form(option) == truth) => Some(format!(
                "`ground_truth` is {:?}, which is not among the options of a closed-world question",
                question.ground_truth
            )),
            (World::Closed, None) => Some("a closed-world question without `option_order`".into()),
            (World::Closed, _) if alike_options(&question.options).is_some() => {
                Some(format!("the `options` {:?} have two that scoring cannot tell apart", question.options))
            }
            (World::Open, _) if !question.options.is_empty() => Some("an open-world question with `options`".into()),
            _ if question.ground_truth.trim().is_empty() => Some("`ground_truth` is empty".into()),
            _ => None,
        }
    }
}

/// Appends predictions to a file, each batch as soon as it is answered. A process that is killed leaves whole lines and
/// perhaps a last one that is cut short, which [`read_predictions`] leaves out.
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

/// Reads a predictions file, plain or gzipped. Leaves out a last line that a killed process cut short.
///
/// # Errors
/// Returns [`EvalError::Data`] if the file cannot be read, [`EvalError::Prediction`] for the first invalid row.
pub fn read_predictions(path: &Path) -> Result<Vec<Prediction>, EvalError> {
    let mut records = read_records(path, ReadLimits::default())?;
    if records.rows.len() > 1 && records.rows.last().is_some_and(Result::is_err) && is_cut(path) {
        records.rows.pop();
    }
    let rows = records.rows.into_iter().map(|record| {
        let record = record?;
        let wrong = |problem| EvalError::Prediction { file: path.to_path_buf(), row: record.row, problem };
        let prediction: Prediction = serde_json::from_value(record.value).map_err(|error| wrong(error.to_string()))?;
        match prediction.problem() {
            None => Ok(prediction),
            Some(problem) => Err(wrong(problem)),
        }
    });
    rows.collect()
}

/// Returns true if the last line of a file has no end.
fn is_cut(path: &Path) -> bool {
    let mut last = [0];
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)
    });
    read.is_ok() && last != *b"\n"
}

#[cfg(test)]
pub(crate) mod tests {
    use fieldmark_data::{Aliases, PromptTemplate, Split};

    use super::*;
    use crate::closed_world::OptionOrder;

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
            assert_eq!(read_predictions(&path).unwrap(), rows[..n]);
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
    fn a_last_line_that_is_cut_short_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let rows = [1, 2].map(|row| prediction("bird", Split::Seen, World::Closed, row, "A", "é"));
        let whole = lines(&rows).unwrap();
        fs::write(&path, whole.trim_end()).unwrap();
        assert_eq!(read_predictions(&path).unwrap(), rows);
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        assert_eq!(read_predictions(&path).unwrap(), rows[..1]);
        // In the middle of the file it is a damaged row.
        fs::write(&path, format!("{}\n{whole}", &whole[..30])).unwrap();
        assert!(read_predictions(&path).is_err());
    }

    #[test]
    fn wrong_rows_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let good = prediction("bird", Split::Seen, World::Closed, 1, "A", "");
        let good = serde_json::to_value(&good).unwrap();
        for (field, value, expected) in [
            ("split", serde_json::json!("both"), "`both`"),
            ("output", serde_json::Value::Null, "null"),
            ("ground_truth", serde_json::json!("E"), "`ground_truth`"),
            ("option_order", serde_json::Value::Null, "`option_order`"),
            ("world", serde_json::json!("open"), "`options`"),
            ("options", serde_json::json!(["A", "Key_Lime", "key lime"]), "`options`"),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            fs::write(&path, format!("{good}\n{bad}\n")).unwrap();
            let error = read_predictions(&path).unwrap_err();
            assert!(matches!(error, EvalError::Prediction { row: 2, .. }), "{error}");
            let error = error.to_string();
            assert!(error.starts_with(&format!("{}:2: ", path.display())), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        let mut short = good.clone();
        short.as_object_mut().unwrap().remove("output");
        fs::write(&path, short.to_string()).unwrap();
        assert!(read_predictions(&path).unwrap_err().to_string().contains("`output`"));
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
