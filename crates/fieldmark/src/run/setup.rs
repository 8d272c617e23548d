//! The settings that every training run needs besides those of its stage: folder, devices, seed, and when to save.

use burn::tensor::Device;
use fieldmark_model::{Adapter, LoraSettings, Qwen25Vl, TrainableParts};
use fieldmark_stream::StreamKey;
use fieldmark_train::{parallel::Reduction, params::initialise_adapters, trainer::Interrupt};

use crate::{
    checkpoint::Checkpoint,
    error::RunError,
    folder::{Begin, Checkpoints, Lock, RUN, Replaced, RunFolder},
    log::LogSettings,
    recipe::RunSection,
};

/// The settings of a training run that do not depend on its stage.
///
/// ```no_run
/// use fieldmark::{device, folder::RunFolder, run::RunSetup};
///
/// let folder = RunFolder::check(Some("runs/birds".as_ref()), false)?;
/// let mut setup = RunSetup::new(folder, device::open("flex")?.device);
/// setup.settings.save_every = 50;
/// # Ok::<(), fieldmark::RunError>(())
/// ```
#[derive(Debug, Clone)]
pub struct RunSetup {
    /// The folder of the run.
    pub folder: RunFolder,
    /// Where the run begins; see [`RunFolder::newest`] and [`RunFolder::resume`].
    pub begin: Begin,
    /// The devices, without autodiff. The first one holds the model and the optimiser's state; all of them share the
    /// work.
    pub devices: Vec<Device>,
    /// How the gradients of several devices are summed.
    pub reduction: Reduction,
    /// Decides every random number.
    pub seed: u64,
    /// LoRA adapters to train instead of the weights.
    pub lora: LoraSettings,
    /// When to save, how many checkpoints to keep, which logs to write.
    pub settings: RunSection,
    /// A shared flag that stops the run after the current step, with a checkpoint.
    pub interrupt: Interrupt,
    /// Files, by name, that a new run writes to its folder before the first step.
    pub records: Vec<(String, Vec<u8>)>,
    /// The folder's lock, if it is held since the folder was looked at.
    pub(super) lock: Option<Lock>,
    /// Whether the run may go on beside what it was about to replace when it was killed.
    pub(super) resumes: bool,
}

impl RunSetup {
    /// Creates the setup of a new run on one device, with the default settings and seed 42.
    pub fn new(folder: RunFolder, device: Device) -> Self {
        Self::on(folder, vec![device])
    }

    /// Creates the setup of a new run on several devices.
    pub(super) fn on(folder: RunFolder, devices: Vec<Device>) -> Self {
        Self {
            folder,
            begin: Begin::Start,
            devices,
            reduction: Reduction::Gather,
            seed: 42,
            lora: LoraSettings::default(),
            settings: RunSection::default(),
            interrupt: Interrupt::new(),
            records: Vec::new(),
            lock: None,
            resumes: false,
        }
    }

    /// The root of the run's random streams.
    pub(super) fn streams(&self) -> StreamKey {
        StreamKey::new(self.seed)
    }

    /// Returns the first device and the others, all tracking gradients.
    pub(super) fn split_devices(&self) -> (Device, Vec<Device>) {
        let mut devices = self.devices.iter().map(|device| device.clone().autodiff());
        let first = devices.next().unwrap_or_default();
        (first, devices.collect())
    }

    pub(super) fn log_settings(&self) -> LogSettings {
        let devices = self.devices.len() as f64;
        let peak_tflops = self.settings.peak_tflops.map(|peak| peak * devices);
        LogSettings { tensorboard: self.settings.tensorboard, peak_tflops }
    }

    /// Checks the settings.
    pub(super) fn validate(&self) -> Result<(), RunError> {
        let refuse = |key: &str, value: String, problem: &str| {
            Err(RunError::Setting { key: key.into(), value, problem: problem.into() })
        };
        if self.settings.keep == 0 {
            return refuse("run.keep", "0".into(), "must be at least 1");
        }
        match self.settings.peak_tflops {
            Some(peak) if !(peak.is_finite() && peak > 0.0) => {
                refuse("run.peak_tflops", peak.to_string(), "must be a positive number")
            }
            _ => Ok(()),
        }
    }

    /// Locks the folder, unless it is the folder of a new run that does not exist yet: [`Self::start`] then creates and
    /// locks it.
    pub(super) fn lock(&self) -> Result<Option<Lock>, RunError> {
        match &self.lock {
            Some(lock) => Ok(Some(lock.clone())),
            None if self.folder.path().is_dir() => self.folder.lock().map(Some),
            None => Ok(None),
        }
    }

    /// Creates the folder of a new run, sets the results of an earlier run aside, and writes the records. For a run that
    /// continues, removes only unfinished files. No other command can write to the folder until the returned lock is
    /// dropped.
    pub(super) fn start(&self, lock: Option<Lock>) -> Result<(Lock, Replaced), RunError> {
        self.folder.create()?;
        let lock = lock.map_or_else(|| self.folder.lock(), Ok)?;
        self.folder.check_empty()?;
        self.folder.check_writable(RUN)?;
        self.folder.remove(&[])?;
        if matches!(self.begin, Begin::Continue { .. }) {
            return Ok((lock, self.folder.go_on_beside(RUN)));
        }
        let replaced = if self.resumes && self.folder.has_aside(RUN) {
            self.folder.remove_new(RUN)?;
            self.folder.go_on_beside(RUN)
        } else {
            self.folder.set_aside(RUN)?
        };
        for (name, content) in &self.records {
            self.folder.write(name, content)?;
        }
        Ok((lock, replaced))
    }

    /// Loads the weights that the run begins with. `train` says which parts are trained.
    pub(super) fn load(
        &self,
        checkpoint: &Checkpoint,
        train: TrainableParts,
        device: &Device,
    ) -> Result<Qwen25Vl, RunError> {
        match &self.begin {
            Begin::Continue { folder, .. } if self.lora.is_on() => {
                let start = self.load_start(checkpoint, train, device)?;
                Ok(start.with_adapter(&Adapter::open(&Checkpoint::adapter(folder))?)?)
            }
            Begin::Continue { folder, .. } => checkpoint.load_from(&Checkpoints::weights(folder), device),
            Begin::Start | Begin::Finished => self.load_start(checkpoint, train, device),
        }
    }

    /// Loads the weights of the first step. Without adapters to train, that of the checkpoint is merged into them.
    /// Otherwise training goes on with it; if there is none, with new adapters that do not change the output yet.
    pub(super) fn load_start(
        &self,
        checkpoint: &Checkpoint,
        train: TrainableParts,
        device: &Device,
    ) -> Result<Qwen25Vl, RunError> {
        match &checkpoint.adapter {
            _ if !self.lora.is_on() => checkpoint.load(device),
            Some(adapter) => Ok(checkpoint.load_base(device)?.with_trained_adapter(adapter, &self.lora, train)?),
            None => {
                let model = checkpoint.load_base(device)?.with_lora(&self.lora, train)?;
                Ok(initialise_adapters(model, &self.streams()))
            }
        }
    }
}
