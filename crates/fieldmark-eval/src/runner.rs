//! Asks a model: questions in, predictions out. The file appears once all questions are answered.
//!
//! Reference: the loop of the released `eval/evaluation.py` (one user turn, image first, greedy). Pixel limits,
//! repetition penalty and sampling have no defaults here: the caller sets them, and every row records them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fieldmark_data::ImageRoots;
use fieldmark_generate::{FinishReason, GenerationConfig, Generator, Request};
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::{
    Alpha, DecodeOptions, ExifOrientation, Message, PatchedImage, Photo, ProcessOptions, Processor, ProcessorError,
    Sequence, SpecialTokens,
};
use fieldmark_stream::StreamKey;

use crate::closed_world::OptionOrder;
use crate::error::EvalError;
use crate::predictions::{Prediction, PredictionWriter, RunSettings};
use crate::question::Question;
use crate::question_set::QuestionSet;

/// The names of model and device in predictions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunName {
    /// The model (its folder, or "base").
    pub model: String,
    /// The device ("flex").
    pub device: String,
}

/// A model with everything that decides its answers. One run may answer several question sets.
#[derive(Clone, Debug)]
pub struct EvalRun<'a> {
    /// The model, on a device that does not track gradients.
    pub model: &'a Qwen25Vl,
    /// The model's processor, with the pixel limits to use.
    pub processor: &'a Processor,
    /// How photographs are decoded.
    pub decode: DecodeOptions,
    /// How answers are decoded; `max_batch` questions are answered at a time.
    pub generation: GenerationConfig,
    /// The seed of the random streams, for sampling.
    pub seed: u64,
    /// The names of model and device in the rows.
    pub name: RunName,
    /// The model's device.
    pub device: &'a Device,
}

impl EvalRun<'_> {
    /// Returns the settings that every row records, read from the parts in use.
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

    /// Answers all questions of `sets` and writes one prediction per line to `path`, in order. The file appears once
    /// all are answered. Calls `on_progress` with (questions done, questions in all) at the start and after every
    /// batch.
    ///
    /// # Errors
    /// Returns [`EvalError::ImageNotFound`] before anything is asked if a photograph is missing, then the errors of
    /// [`Self::answer`], and [`EvalError::Write`] if the file cannot be written.
    pub fn predict(
        &self,
        sets: &[QuestionSet],
        path: &Path,
        on_progress: impl FnMut(usize, usize),
    ) -> Result<(), EvalError> {
        sets.iter().try_for_each(QuestionSet::check_images)?;
        let mut writer = PredictionWriter::create(path)?;
        self.predict_into(sets, &mut writer, on_progress)?;
        writer.finish()
    }

    /// Like [`Self::predict`], but appends to a writer that may take predictions of other runs too, and does not look
    /// for missing photographs first (see [`QuestionSet::check_images`]).
    ///
    /// # Errors
    /// Returns the errors of [`Self::answer`], and [`EvalError::Write`] if the file cannot be written.
    pub fn predict_into(
        &self,
        sets: &[QuestionSet],
        writer: &mut PredictionWriter,
        mut on_progress: impl FnMut(usize, usize),
    ) -> Result<(), EvalError> {
        let total = sets.iter().map(|set| set.questions.len()).sum();
        let mut done = 0;
        on_progress(done, total);
        for set in sets {
            for batch in set.questions.chunks(self.generation.max_batch.max(1)) {
                for prediction in self.answer(batch, &set.images)? {
                    writer.append(&prediction)?;
                }
                done += batch.len();
                on_progress(done, total);
            }
        }
        Ok(())
    }

    /// Answers `questions`, in their order; `images` is where their photographs are. A photograph that several
    /// questions share is decoded once.
    ///
    /// # Errors
    /// Returns [`EvalError::ImageNotFound`], [`EvalError::Photo`] or [`EvalError::Processor`] for a question that
    /// cannot become a prompt, and [`EvalError::Generate`] if a prompt does not fit the model or logits are not finite.
    pub fn answer(&self, questions: &[Question], images: &ImageRoots) -> Result<Vec<Prediction>, EvalError> {
        let mut decoded: BTreeMap<PathBuf, PatchedImage> = BTreeMap::new();
        let mut requests = Vec::with_capacity(questions.len());
        for question in questions {
            let prompt = self.prompt(question, images, &mut decoded)?;
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

    fn prompt(
        &self,
        question: &Question,
        images: &ImageRoots,
        decoded: &mut BTreeMap<PathBuf, PatchedImage>,
    ) -> Result<Sequence, EvalError> {
        let refuse = |source| EvalError::Photo { question: question.name(), source };
        let file = question.find_image(images)?;
        let image = match decoded.get(&file) {
            Some(image) => image.clone(),
            None => {
                let photo = Photo::open(&file, &self.decode).map_err(refuse)?;
                let image = self.processor.patch_one(&question.name(), &photo, None).map_err(|error| match error {
                    ProcessorError::TooLong { .. } => error.into(),
                    other => refuse(other),
                })?;
                decoded.entry(file).or_insert(image).clone()
            }
        };
        let mut messages: Vec<Message> = question.system.iter().map(Message::system).collect();
        messages.push(Message::user(&question.prompt));
        Ok(self.processor.encode(&question.name(), &messages, vec![image], ProcessOptions::prompt())?)
    }

    /// Returns the key of a question's random stream, which depends on question and seed, not on the place in the run.
    fn key(&self, question: &Question) -> StreamKey {
        let key = StreamKey::new(self.seed).word("evaluation").word(&question.dataset);
        let key = key.word(&question.split.to_string()).word(&question.world.to_string());
        let key = key.number(question.row as u64);
        match question.option_order {
            Some(OptionOrder::Rotated { by, .. }) => key.number(by as u64),
            _ => key,
        }
    }
}
