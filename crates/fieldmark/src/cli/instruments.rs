//! What a run is watched by: what is shown of it, `timings.jsonl` with what the device adds, and TensorBoard's curves of
//! metrics and timings.

use burn::tensor::Device;
use fieldmark::train::{Decoding, DecodingTiming, LogEnd, MetricsWriter, TensorBoard, TrainError, UpdateTiming};
use serde::Serialize;

use super::{
    display::{Course, Display},
    interrupt::Listener,
    training::Prepared,
};

/// Folder of the event files.
pub const TENSORBOARD: &str = "tensorboard";

/// Shows a run and writes timings and curves.
pub struct Instruments {
    /// What is to be seen meanwhile.
    pub display: Display,
    /// Name of the stage's curves.
    stage: &'static str,
    timings: MetricsWriter,
    board: Option<TensorBoard>,
    device: Device,
    peak_tflops: Option<f64>,
}

impl Instruments {
    /// Those of a new run, or of one that goes on at `end`.
    ///
    /// # Errors
    /// If a file cannot be written or continued, or signals not be handled.
    pub fn open(
        prepared: &Prepared,
        stage: &'static str,
        end: Option<LogEnd>,
        course: Course,
        listener: &mut Listener,
    ) -> anyhow::Result<Self> {
        let run = prepared.recipe.run;
        let folder = prepared.output.file(TENSORBOARD);
        let board = run.tensorboard.then(|| TensorBoard::create(folder, end.map_or(0, |end| end.step))).transpose()?;
        let timings = prepared.log("timings.jsonl", end)?;
        let device = prepared.split_devices().0.without_autodiff();
        let devices = prepared.devices.len() as f64;
        let peak_tflops = run.peak_tflops.map(|peak| peak * devices);
        let display = Display::open(run.dashboard, stage, course, listener)?;
        Ok(Self { display, stage, timings, board, device, peak_tflops })
    }

    /// An update is made.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn update(&mut self, row: &impl Serialize, timing: &UpdateTiming) -> Result<(), TrainError> {
        let timing = timing.clone().on(&self.device, self.peak_tflops);
        self.timings.write(&timing)?;
        self.display.update(row, &timing)?;
        self.draw(self.stage, "update", timing.step, row, &timing)
    }

    /// Responses are decoded. Rollouts stand at the first update that they are for, a validation at the last before it.
    ///
    /// # Errors
    /// If something cannot be written.
    pub fn decoded(&mut self, row: &impl Serialize, timing: &DecodingTiming) -> Result<(), TrainError> {
        self.timings.write(timing)?;
        self.display.decoded(row, timing)?;
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
    ) -> Result<(), TrainError> {
        let Some(board) = &mut self.board else { return Ok(()) };
        board.scalars(name, step, row)?;
        board.scalars(&format!("time/{part}"), step, timing)
    }

    /// Waits until the timings are on the disk.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> Result<(), TrainError> {
        self.timings.sync()
    }
}
