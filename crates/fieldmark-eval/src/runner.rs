//! Asks a model: questions in, predictions out. Every answer is in the file as soon as its batch is answered, so that an
//! evaluation that was stopped goes on where it ended. A question that cannot be asked costs its row alone.
//!
//! Reference: the loop of the released `eval/evaluation.py` (one user turn, image first, greedy). Pixel limits,
//! repetition penalty and sampling have no defaults here: the caller sets them, and every row records them.

use std::collections::BTreeMap;
use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use fieldmark_data::ImageRoots;
use fieldmark_generate::{FinishReason, GenerateError, GenerationConfig, Generator, Request, Response};
use fieldmark_model::Qwen25Vl;
use fieldmark_model::files::write_whole;
use fieldmark_processor::{
    Alpha, DecodeOptions, ExifOrientation, Message, PatchedImage, Photo, ProcessOptions, Processor, ProcessorError,
    Sequence, SpecialTokens,
};
use fieldmark_stream::StreamKey;

use crate::closed_world::OptionOrder;
use crate::error::EvalError;
use crate::kept::Kept;
use crate::predictions::{Prediction, PredictionWriter, RunSettings, lines};
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

/// How far an evaluation has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Number of questions with a row in the file, those that could not be asked included.
    pub done: usize,
    /// Number of questions.
    pub total: usize,
    /// Number of questions that could not be asked.
    pub failed: usize,
}

impl Answered {
    /// Returns true if every question has a row.
    pub fn is_finished(&self) -> bool {
        self.done == self.total
    }
}

/// Questions that are answered together.
struct Batch<'a> {
    questions: &'a [Question],
    images: &'a ImageRoots,
    /// Their rows in the file, from 0.
    rows: Range<usize>,
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

    /// Answers all questions of `sets` and writes one prediction per line to `path`, in order, each batch as soon as it
    /// is answered. Calls `on_progress` with (questions done, questions in all) at the start and after every batch.
    ///
    /// # Errors
    /// Returns [`EvalError::ImageNotFound`] before anything is asked if a photograph is missing, then the errors of
    /// [`Self::go_on`].
    pub fn predict(
        &self,
        sets: &[QuestionSet],
        path: &Path,
        mut on_progress: impl FnMut(usize, usize),
    ) -> Result<Answered, EvalError> {
        sets.iter().try_for_each(QuestionSet::check_images)?;
        self.go_on(sets, path, Kept::default(), |answered| {
            on_progress(answered.done, answered.total);
            ControlFlow::Continue(())
        })
    }

    /// Goes on with the rows of `path` that an earlier process left. The file ends as if it had never been stopped.
    /// Then asks the kept questions again that could not be asked before. Calls `on_progress` at the start and after
    /// every batch; it may stop the evaluation there.
    ///
    /// A question that cannot be asked gets a row with the error.
    ///
    /// # Errors
    /// Returns [`EvalError::Generate`] if a setting is wrong, or if the first batch shows that the model computes no
    /// finite logits for any question. Returns [`EvalError::Write`] if the file cannot be written.
    pub fn go_on(
        &self,
        sets: &[QuestionSet],
        path: &Path,
        mut kept: Kept,
        mut on_progress: impl FnMut(Answered) -> ControlFlow<()>,
    ) -> Result<Answered, EvalError> {
        let batches = self.batches(sets);
        kept.cut_to(batches.iter().map(|batch| batch.rows.end));
        let total = batches.last().map_or(0, |batch| batch.rows.end);
        let failed = kept.rows.iter().filter(|row| row.error.is_some()).count();
        let mut answered = Answered { done: kept.rows.len(), total, failed };
        let mut writer = match kept.rows.len() {
            0 => PredictionWriter::create(path)?,
            _ => PredictionWriter::go_on(path, kept.length())?,
        };
        let (before, rest): (Vec<_>, Vec<_>) = batches.iter().partition(|batch| batch.rows.end <= kept.rows.len());
        if on_progress(answered).is_break() {
            return Ok(answered);
        }
        for batch in rest {
            let rows = self.rows(batch, answered.done == answered.failed)?;
            writer.append(&rows)?;
            answered.done = batch.rows.end;
            answered.failed += rows.iter().filter(|row| row.error.is_some()).count();
            if on_progress(answered).is_break() {
                return Ok(answered);
            }
        }
        let again = before.into_iter().filter(|batch| kept.rows[batch.rows.clone()].iter().any(|r| r.error.is_some()));
        for batch in again {
            let old = &kept.rows[batch.rows.clone()];
            let rows = self.rows(batch, false)?;
            if rows != old {
                replace(path, batch.rows.clone(), &rows)?;
            }
            let failed = |rows: &[Prediction]| rows.iter().filter(|row| row.error.is_some()).count();
            answered.failed = answered.failed + failed(&rows) - failed(old);
            if on_progress(answered).is_break() {
                break;
            }
        }
        Ok(answered)
    }

    /// The questions of every set in batches.
    fn batches<'a>(&self, sets: &'a [QuestionSet]) -> Vec<Batch<'a>> {
        let (mut batches, mut start) = (Vec::new(), 0);
        for set in sets {
            for questions in set.questions.chunks(self.generation.max_batch.max(1)) {
                let rows = start..start + questions.len();
                start = rows.end;
                batches.push(Batch { questions, images: &set.images, rows });
            }
        }
        batches
    }

    /// Answers a batch. A question that cannot be asked gets a row with the error. If `nothing_yet` is true, no
    /// question was answered before, and a batch without a finite logit is an error of the model.
    fn rows(&self, batch: &Batch<'_>, nothing_yet: bool) -> Result<Vec<Prediction>, EvalError> {
        let mut answers = self.try_answer(batch.questions, batch.images)?;
        let is_model =
            |answer: &Result<_, EvalError>| matches!(answer, Err(EvalError::Generate(GenerateError::NotFinite { .. })));
        if nothing_yet && answers.iter().all(is_model) {
            return answers.swap_remove(0).map(|row| vec![row]);
        }
        let rows = batch.questions.iter().zip(answers);
        Ok(rows.map(|(question, answer)| answer.unwrap_or_else(|error| self.failed(question, &error))).collect())
    }

    /// The row of a question that could not be asked.
    fn failed(&self, question: &Question, error: &EvalError) -> Prediction {
        Prediction {
            question: question.clone(),
            settings: self.settings(),
            output: String::new(),
            output_tokens: 0,
            finished: false,
            error: Some(error.to_string()),
        }
    }

    /// Answers `questions`, in their order; `images` is where their photographs are. A photograph that several
    /// questions share is decoded once.
    ///
    /// # Errors
    /// Returns [`EvalError::ImageNotFound`], [`EvalError::Photo`] or [`EvalError::Processor`] for a question that
    /// cannot become a prompt, and [`EvalError::Generate`] if a prompt does not fit the model or logits are not finite.
    pub fn answer(&self, questions: &[Question], images: &ImageRoots) -> Result<Vec<Prediction>, EvalError> {
        self.try_answer(questions, images)?.into_iter().collect()
    }

    /// Answers `questions` like [`Self::answer`], with a result for each of them.
    ///
    /// # Errors
    /// Returns an error that is no fault of a question.
    fn try_answer(
        &self,
        questions: &[Question],
        images: &ImageRoots,
    ) -> Result<Vec<Result<Prediction, EvalError>>, EvalError> {
        let mut decoded: BTreeMap<PathBuf, PatchedImage> = BTreeMap::new();
        let mut requests = Vec::with_capacity(questions.len());
        let mut problems: Vec<Option<EvalError>> = Vec::with_capacity(questions.len());
        for question in questions {
            match self.prompt(question, images, &mut decoded).and_then(|prompt| self.fits(prompt)) {
                Ok(prompt) => {
                    requests.push(Request { prompt, streams: vec![self.key(question).stream()] });
                    problems.push(None);
                }
                Err(error) => problems.push(Some(error)),
            }
        }
        let generator =
            Generator::new(self.model, self.generation.clone(), self.processor.tokenizer.pad(), self.device)?;
        let mut responses = generate_each(&generator, &requests)?.into_iter();
        let settings = self.settings();
        let written = |question: &Question, response: Response| {
            Ok(Prediction {
                question: question.clone(),
                settings: settings.clone(),
                output: self.processor.tokenizer.decode(response.text_ids(), SpecialTokens::Skip)?,
                output_tokens: response.ids.len(),
                finished: response.finish == FinishReason::Stop,
                error: None,
            })
        };
        let answers = questions.iter().zip(problems).filter_map(|(question, problem)| match problem {
            Some(error) => Some(Err(error)),
            None => responses.next().map(|response| written(question, response?)),
        });
        Ok(answers.collect())
    }

    /// Checks that a prompt leaves room for an answer.
    fn fits(&self, prompt: Sequence) -> Result<Sequence, EvalError> {
        let (tokens, context) = (prompt.ids.len(), self.model.config().text.max_position_embeddings);
        if tokens >= context {
            return Err(GenerateError::Context { sample: prompt.name, tokens, context }.into());
        }
        Ok(prompt)
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
        let key = question.file.iter().fold(key, |key, file| key.word(file)).number(question.row as u64);
        match question.option_order {
            Some(OptionOrder::Rotated { by, .. }) => key.number(by as u64),
            _ => key,
        }
    }
}

/// Generates a response to each request. If the batch fails because of one of them, each is generated alone.
///
/// # Errors
/// Returns an error that is no fault of a request.
fn generate_each(
    generator: &Generator<'_>,
    requests: &[Request],
) -> Result<Vec<Result<Response, EvalError>>, EvalError> {
    match generator.generate(requests) {
        Ok(responses) => Ok(responses.into_iter().flatten().map(Ok).collect()),
        Err(error) if !matches!(error, GenerateError::Context { .. } | GenerateError::NotFinite { .. }) => {
            Err(error.into())
        }
        Err(error) if requests.len() <= 1 => Ok(vec![Err(error.into())]),
        Err(_) => {
            let mut responses = Vec::with_capacity(requests.len());
            for request in requests {
                responses.extend(generate_each(generator, std::slice::from_ref(request))?);
            }
            Ok(responses)
        }
    }
}

/// Replaces `rows` of a predictions file by others. The file is replaced as a whole.
fn replace(path: &Path, rows: Range<usize>, by: &[Prediction]) -> Result<(), EvalError> {
    let replaced = fs::read_to_string(path).and_then(|text| {
        let new = lines(by)?;
        let old: Vec<&str> = text.split_inclusive('\n').collect();
        let (before, after) = (&old[..rows.start.min(old.len())], &old[rows.end.min(old.len())..]);
        write_whole(path, [&before.concat(), new.as_str(), &after.concat()].concat().as_bytes())
    });
    replaced.map_err(|source| EvalError::Write { file: path.into(), source })
}
