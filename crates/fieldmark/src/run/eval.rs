//! An evaluation: writes the predictions of a model in both worlds to `predictions.jsonl`, from which alone its scores are
//! computed.

use std::{ops::ControlFlow, path::PathBuf};

use burn::tensor::Device;
use fieldmark_eval::{Answered, EvalRun, Kept, QuestionSet, RunName};
use fieldmark_generate::GenerationConfig;
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::DecodeOptions;
use fieldmark_train::trainer::Interrupt;

use super::{Observer, RunEvent};
use crate::{
    checkpoint::Checkpoint,
    error::RunError,
    folder::{EVAL, Replaced, RunFolder},
};

/// Name of the predictions file.
pub(super) const PREDICTIONS: &str = "predictions.jsonl";

/// The parts of an evaluation.
pub struct Eval<'a> {
    /// The model, its processor, and the decoding settings.
    pub run: EvalRun<'a>,
    /// The questions.
    pub sets: &'a [QuestionSet],
    /// A shared flag that stops the evaluation after the current batch.
    pub interrupt: Interrupt,
}

impl<'a> Eval<'a> {
    /// Creates an evaluation with greedy answers of at most `max_new_tokens` tokens. `model` holds the weights of
    /// `checkpoint` on `device`.
    pub fn greedy(
        checkpoint: &'a Checkpoint,
        model: &'a Qwen25Vl,
        device: &'a Device,
        sets: &'a [QuestionSet],
        max_new_tokens: usize,
    ) -> Self {
        let run = EvalRun {
            model,
            processor: &checkpoint.processor,
            decode: DecodeOptions::default(),
            generation: GenerationConfig::greedy(max_new_tokens, checkpoint.eos.clone()),
            seed: 42,
            name: RunName { model: checkpoint.name(), device: String::new() },
            device,
        };
        Self { run, sets, interrupt: Interrupt::new() }
    }
}

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evaluated {
    /// The predictions file.
    pub predictions: PathBuf,
    /// How many questions have an answer in it; fewer than all if the evaluation was stopped.
    pub answered: Answered,
}

/// Answers all questions and writes `predictions.jsonl` in `folder`. Each answer is in the file as soon as its batch is
/// answered. A question that cannot be asked gets a row with the error.
///
/// # Errors
/// Returns an error before the first question if a photograph is missing, or if another command writes to the folder.
/// Also returns an error if the model fails, or if the file cannot be written.
pub fn eval(parts: Eval<'_>, folder: &RunFolder, observer: &mut dyn Observer) -> Result<Evaluated, RunError> {
    parts.sets.iter().try_for_each(QuestionSet::check_images)?;
    folder.create()?;
    let _lock = folder.lock()?;
    folder.check_empty()?;
    answer(&parts, folder, Kept::default(), folder.set_aside(EVAL)?, observer)
}

/// Answers the questions that have no row in `kept`. Old results stay aside until all are answered.
pub(super) fn answer(
    parts: &Eval<'_>,
    folder: &RunFolder,
    kept: Kept,
    mut replaced: Replaced,
    observer: &mut dyn Observer,
) -> Result<Evaluated, RunError> {
    let predictions = folder.file(PREDICTIONS);
    let mut told = Ok(());
    let answered = parts.run.go_on(parts.sets, &predictions, kept, |answered| {
        told = observer.event(RunEvent::Answered { done: answered.done, total: answered.total });
        if told.is_err() || parts.interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    if answered.as_ref().is_ok_and(Answered::is_finished) {
        replaced.settle(true)?;
    } else if std::fs::metadata(&predictions).is_ok_and(|file| file.len() > 0) {
        replaced.leave();
    }
    let answered = answered?;
    told.map(|()| Evaluated { predictions, answered })
}
