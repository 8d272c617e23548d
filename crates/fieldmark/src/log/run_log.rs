//! All logs of a run: they take the trainer's events, and continue after a checkpoint as if the run had not been stopped.

use burn::tensor::Device;
use fieldmark_train::{
    tapo::{SampleFacts, rollout::Group},
    trainer::{Decoding, DecodingTiming, TrainEvent, UpdateTiming},
};
use serde::Serialize;

use super::{
    metrics::{LogEnd, MetricsWriter},
    responses::Responses,
    tensorboard::TensorBoard,
};
use crate::{Stage, error::RunError, folder::RunFolder};

/// Which logs a run has besides its metrics and timings.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogSettings {
    /// Whether TensorBoard's event files are written.
    pub tensorboard: bool,
    /// The peak of all devices together in 10¹² operations a second, if it is known.
    pub peak_tflops: Option<f64>,
}

/// The logs of a run.
pub(crate) struct RunLog<'a> {
    stage: Stage,
    metrics: MetricsWriter,
    timings: MetricsWriter,
    board: Option<TensorBoard>,
    responses: Option<Responses<'a>>,
    device: Device,
    peak_tflops: Option<f64>,
}

impl<'a> RunLog<'a> {
    /// The logs of a new run in `folder`, or of one that continues at `end`. The memory of `device` is measured.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written or continued.
    pub(crate) fn open(
        folder: &RunFolder,
        stage: Stage,
        settings: LogSettings,
        device: &Device,
        end: Option<LogEnd>,
    ) -> Result<Self, RunError> {
        let LogSettings { tensorboard, peak_tflops } = settings;
        let step = end.map_or(0, |end| end.step);
        let board = tensorboard.then(|| TensorBoard::create(folder.file("tensorboard"), step)).transpose()?;
        Ok(Self {
            stage,
            metrics: MetricsWriter::open(folder.file("metrics.jsonl"), end)?,
            timings: MetricsWriter::open(folder.file("timings.jsonl"), end)?,
            board,
            responses: None,
            device: device.clone().without_autodiff(),
            peak_tflops,
        })
    }

    /// Adds `rollouts.jsonl` and, if there is a validation set, `validation.jsonl`. `source` and `held_out` say what the lines
    /// tell of a sample; `over_step`: advantages are not known when rollouts are written.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written or continued.
    pub(crate) fn with_responses(
        mut self,
        folder: &RunFolder,
        over_step: bool,
        source: impl Fn(&Group) -> SampleFacts + 'a,
        held_out: Option<impl Fn(&Group) -> SampleFacts + 'a>,
        end: Option<LogEnd>,
    ) -> Result<Self, RunError> {
        let file = |facts| -> Result<(_, Box<dyn Fn(&Group) -> SampleFacts + 'a>), RunError> {
            Ok((MetricsWriter::open(folder.file("validation.jsonl"), end)?, Box::new(facts)))
        };
        self.responses = Some(Responses {
            held_out: held_out.map(file).transpose()?,
            rollouts: MetricsWriter::open(folder.file("rollouts.jsonl"), end)?,
            over_step,
            source: Box::new(source),
        });
        Ok(self)
    }

    /// What the clock says of an update, with what the device adds.
    pub(crate) fn on_device(&self, timing: &UpdateTiming) -> UpdateTiming {
        timing.clone().on(&self.device, self.peak_tflops)
    }

    /// Writes down an event of rollout step `step`, which counts from 1. The timing of an update is the one that
    /// [`Self::on_device`] made.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub(crate) fn write(&mut self, event: TrainEvent<'_>, step: usize) -> Result<(), RunError> {
        match event {
            TrainEvent::SftUpdate(row, timing) => self.update(row, timing),
            TrainEvent::TapoUpdate(row, timing) => self.update(row, timing),
            TrainEvent::Rollouts(groups) => match &mut self.responses {
                Some(responses) => responses.rollouts(step, groups),
                None => Ok(()),
            },
            TrainEvent::Drawn(row, timing) => self.decoded(row, timing),
            TrainEvent::Validation(answers, row, timing) => {
                if let Some(responses) = &mut self.responses {
                    responses.answers(answers, row)?;
                }
                self.decoded(row, timing)
            }
        }
    }

    fn update(&mut self, row: &impl Serialize, timing: &UpdateTiming) -> Result<(), RunError> {
        self.metrics.write(row)?;
        self.timings.write(timing)?;
        self.draw(self.stage.section(), "update", timing.step, row, timing)
    }

    /// Rollouts are drawn at the first update that they are for, a validation at the last update before it.
    fn decoded(&mut self, row: &impl Serialize, timing: &DecodingTiming) -> Result<(), RunError> {
        self.metrics.write(row)?;
        self.timings.write(timing)?;
        match timing.part {
            Decoding::Rollouts => self.draw("rollouts", "rollouts", timing.step + 1, row, timing),
            Decoding::Validation => self.draw("validation", "validation", timing.step, row, timing),
        }
    }

    fn draw(
        &mut self,
        name: &str,
        part: &str,
        step: usize,
        row: &impl Serialize,
        timing: &impl Serialize,
    ) -> Result<(), RunError> {
        let Some(board) = &mut self.board else { return Ok(()) };
        board.scalars(name, step, row)?;
        board.scalars(&format!("time/{part}"), step, timing)
    }

    /// Waits until the logs are on the disk: a checkpoint relies on them.
    ///
    /// # Errors
    /// Returns what the system says.
    pub(crate) fn sync(&self) -> Result<(), RunError> {
        self.metrics.sync()?;
        self.timings.sync()?;
        self.responses.iter().try_for_each(Responses::sync)
    }
}
