//! Asks a model: questions in, predictions out. The file appears when all are answered, and is scored from itself alone.
//!
//! Reference: the loop of the released `eval/evaluation.py` (one user turn, image first, greedy), without its defaults:
//! pixel limits, repetition penalty and sampling are the caller's and stand in every row.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fieldmark_data::ImageRoots;
use fieldmark_generate::{FinishReason, GenerationConfig, Generator, Request};
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::{
    Alpha, DecodeOptions, ExifOrientation, Message, PatchedImage, Photo, ProcessOptions, Processor, Sequence,
    SpecialTokens,
};
use fieldmark_stream::StreamKey;

use crate::error::EvalError;
use crate::predictions::{Prediction, PredictionWriter, RunSettings};
use crate::question::Question;

/// What model and device are called in predictions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunName {
    /// The model (its folder, or "base").
    pub model: String,
    /// The device ("flex").
    pub device: String,
}

/// A model with everything that decides what it answers.
#[derive(Clone, Debug)]
pub struct EvalRun<'a> {
    /// The model, on a device that does not track gradients.
    pub model: &'a Qwen25Vl,
    /// Its processor, with the pixel limits wanted.
    pub processor: &'a Processor,
    /// Where the questions' photographs lie.
    pub images: &'a ImageRoots,
    /// How photographs are decoded.
    pub decode: DecodeOptions,
    /// How answers are decoded; `max_batch` questions go side by side.
    pub generation: GenerationConfig,
    /// The seed of the random streams, for sampling.
    pub seed: u64,
    /// What the rows call model and device.
    pub name: RunName,
    /// Where the model is.
    pub device: &'a Device,
}

impl EvalRun<'_> {
    /// The settings as every row records them, read from what is used.
    pub fn settings(&self) -> RunSettings {
        let limits = self.processor.images.config().limits;
        RunSettings {
            model: self.name.model.clone(),
            min_pixels: limits.min_pixels,
            max_pixels: limits.max_pixels,
            dtype: self.model.head_weight().dtype().name().to_owned(),
            device: self.name.device.clone(),
            exif_honoured: self.decode.exif == ExifOrientation::Honour,
            alpha: match self.decode.alpha {
                Alpha::Drop => "drop".into(),
                Alpha::White => "white".into(),
            },
            sampling: self.generation.sampling.clone(),
            seed: self.seed,
            max_new_tokens: self.generation.max_new_tokens,
        }
    }

    /// Answers `questions` in batches and writes one prediction a line to `path`, in their order; the file is there once
    /// all are answered. `on_progress` gets how many are done and how many there are, after every batch.
    ///
    /// # Errors
    /// [`EvalError::ImageNotFound`] before anything is asked; else the first of [`Self::answer`]; [`EvalError::Write`].
    pub fn predict(
        &self,
        questions: &[Question],
        path: &Path,
        on_progress: impl FnMut(usize, usize),
    ) -> Result<(), EvalError> {
        self.check_images(questions)?;
        let mut writer = PredictionWriter::create(path)?;
        self.predict_into(questions, &mut writer, on_progress)?;
        writer.finish()
    }

    /// The same into a file that takes the predictions of several runs.
    ///
    /// # Errors
    /// The first of [`Self::answer`], or [`EvalError::Write`].
    pub fn predict_into(
        &self,
        questions: &[Question],
        writer: &mut PredictionWriter,
        mut on_progress: impl FnMut(usize, usize),
    ) -> Result<(), EvalError> {
        let mut done = 0;
        on_progress(done, questions.len());
        for batch in questions.chunks(self.generation.max_batch.max(1)) {
            for prediction in self.answer(batch)? {
                writer.append(&prediction)?;
            }
            done += batch.len();
            on_progress(done, questions.len());
        }
        Ok(())
    }

    /// Answers all of `questions` at once, in their order; a photograph that several share is decoded once.
    ///
    /// # Errors
    /// [`EvalError::ImageNotFound`], [`EvalError::Photo`] or [`EvalError::Processor`] for a question that cannot be asked,
    /// [`EvalError::Generate`] for a prompt that does not fit the model or logits that are not finite.
    pub fn answer(&self, questions: &[Question]) -> Result<Vec<Prediction>, EvalError> {
        let mut decoded: BTreeMap<PathBuf, PatchedImage> = BTreeMap::new();
        let mut requests = Vec::with_capacity(questions.len());
        for question in questions {
            let prompt = self.prompt(question, &mut decoded)?;
            requests.push(Request { prompt, streams: vec![self.key(question).stream()] });
        }
        let generator =
            Generator::new(self.model, self.generation.clone(), self.processor.tokenizer.pad(), self.device)?;
        let settings = self.settings();
        let mut predictions = Vec::with_capacity(questions.len());
        for (question, responses) in questions.iter().zip(generator.generate(&requests)?) {
            for response in responses {
                predictions.push(Prediction {
                    question: question.clone(),
                    settings: settings.clone(),
                    output: self.processor.tokenizer.decode(response.text_ids(), SpecialTokens::Skip)?,
                    output_tokens: response.ids.len(),
                    finished: response.finish == FinishReason::Stop,
                });
            }
        }
        Ok(predictions)
    }

    /// Says before a long run which photograph is missing.
    ///
    /// # Errors
    /// [`EvalError::ImageNotFound`] for the first.
    pub fn check_images(&self, questions: &[Question]) -> Result<(), EvalError> {
        questions.iter().try_for_each(|question| self.file(question).map(drop))
    }

    fn file(&self, question: &Question) -> Result<PathBuf, EvalError> {
        self.images.find(Path::new(&question.image_path)).ok_or_else(|| EvalError::ImageNotFound {
            question: name(question),
            image: question.image_path.clone(),
            folder: self.images.folder().to_path_buf(),
        })
    }

    fn prompt(
        &self,
        question: &Question,
        decoded: &mut BTreeMap<PathBuf, PatchedImage>,
    ) -> Result<Sequence, EvalError> {
        let refuse = |source| EvalError::Photo { question: name(question), source };
        let file = self.file(question)?;
        let image = match decoded.get(&file) {
            Some(image) => image.clone(),
            None => {
                let photo = Photo::open(&file, &self.decode).map_err(refuse)?;
                let image = self.processor.images.process(&photo).map_err(refuse)?;
                decoded.entry(file).or_insert(image).clone()
            }
        };
        let mut messages: Vec<Message> = question.system.iter().map(Message::system).collect();
        messages.push(Message::user(&question.prompt));
        Ok(self.processor.encode(&name(question), &messages, vec![image], ProcessOptions::prompt())?)
    }

    /// The stream of a question depends on the question and the seed, not on its place in the run.
    fn key(&self, question: &Question) -> StreamKey {
        let key = StreamKey::new(self.seed).word("evaluation").word(&question.dataset);
        let key = key.word(&question.split.to_string()).word(&question.world.to_string());
        let key = key.number(question.row as u64);
        match question.option_order {
            Some(crate::OptionOrder::Rotated { by, .. }) => key.number(by as u64),
            _ => key,
        }
    }
}

fn name(question: &Question) -> String {
    format!("{} {}, row {}", question.dataset, question.split, question.row)
}
