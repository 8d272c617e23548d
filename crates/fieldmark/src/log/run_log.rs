//! All logs of a run. They receive the trainer's events, and continue after a checkpoint as if the run had never
//! stopped.

use burn::tensor::Device;
use fieldmark_train::{
    tapo::{SampleFacts, rollout::Group},
    trainer::{Decoding, DecodingTiming, TrainEvent, UpdateTiming},
};
use serde::Serialize;

use super::{
    metrics::{LogEnd, MetricsWriter},
    responses::{Facts, Responses},
    tensorboard::TensorBoard,
};
use crate::{Stage, error::RunError, folder::RunFolder};

/// Settings of a run's logs.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LogSettings {
    /// Whether to write event files for TensorBoard.
    pub tensorboard: bool,
    /// Peak of all devices together in 10¹² operations per second, if it is known.
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
    /// Opens the logs of a new run in `folder`, or of a run that continues after `end`. Measures the memory of
    /// `device`.
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

    /// Adds `rollouts.jsonl` and, if there is a validation set, `validation.jsonl`. `source` and `held_out` return what
    /// the lines say about a sample. `over_step` says that advantages are not known when rollouts are written.
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
        let held_out = match held_out {
            Some(facts) => {
                let file = MetricsWriter::open(folder.file("validation.jsonl"), end)?;
                Some((file, Box::new(facts) as Box<Facts<'a>>))
            }
            None => None,
        };
        self.responses = Some(Responses {
            held_out,
            rollouts: MetricsWriter::open(folder.file("rollouts.jsonl"), end)?,
            over_step,
            source: Box::new(source),
        });
        Ok(self)
    }

    /// Adds the device's memory and utilisation to the timing of an update.
    pub(crate) fn on_device(&self, timing: &UpdateTiming) -> UpdateTiming {
        timing.clone().on(&self.device, self.peak_tflops)
    }

    /// Logs an event of step `step`, counted from 1. The timing of an update must come from [`Self::on_device`].
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
            TrainEvent::Finding(_) => Ok(()),
        }
    }

    fn update(&mut self, row: &impl Serialize, timing: &UpdateTiming) -> Result<(), RunError> {
        self.metrics.write(row)?;
        self.timings.write(timing)?;
        self.draw(self.stage.section(), "update", timing.step, row, timing)
    }

    /// TensorBoard shows rollouts at the first update that uses them, and a validation at the last update before it.
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

    /// Waits until the logs are on disk, because a checkpoint relies on them.
    ///
    /// # Errors
    /// Returns the error of the operating system.
    pub(crate) fn sync(&self) -> Result<(), RunError> {
        self.metrics.sync()?;
        self.timings.sync()?;
        self.responses.iter().try_for_each(Responses::sync)
    }
}
