//! What `fieldmark sft` and `fieldmark tapo` have in common: recipe, device, and trying every sample before the first update.

use std::{fs::File, path::Path, time::Instant};

use anyhow::{anyhow, bail};
use burn::tensor::Device;
use fieldmark::{
    device::{self, OpenDevice},
    model::{Qwen25Vl, TrainableParts},
    progress::Progress,
    recipe::{Recipe, WeightType},
    stream::StreamKey,
    train::{HalfWeights, LogEnd, MetricsWriter, Reduction, TrainError, Trainable, initialise_adapters, trainable},
};

use super::{
    Outcome, RunArgs,
    checkpoint::Checkpoint,
    display::Display,
    inputs::{self, INPUTS},
    keeper::Keeper,
    output::OutputFolder,
    resume::{self, Begin},
    say,
};

/// A run that is ready to read its data.
pub struct Prepared {
    /// The stage, which is its section of the recipe.
    pub stage: &'static str,
    /// The recipe with its overrides.
    pub recipe: Recipe,
    /// The output folder, not yet made.
    pub output: OutputFolder,
    /// Where the run begins.
    pub begin: Begin,
    /// The parts of the model that learn.
    pub train: TrainableParts,
    /// The devices: the first holds the model and the optimiser's state, the others share the work.
    pub devices: Vec<OpenDevice>,
    /// How their gradients are added up.
    pub reduction: Reduction,
}

impl Prepared {
    /// Reads the recipe and checks its settings with `validate`, those of `section`; then looks at the output folder and
    /// opens the device.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn new(
        args: &RunArgs,
        section: &'static str,
        validate: impl FnOnce(&Recipe) -> Result<(), TrainError>,
    ) -> anyhow::Result<Self> {
        let recipe = Recipe::read(&args.config, &args.set)?;
        validate(&recipe).map_err(|error| in_section(section, error))?;
        check_formats(&recipe, section)?;
        if recipe.run.keep == 0 {
            bail!("`run.keep` = 0: must be at least 1");
        }
        if let Some(peak) = recipe.run.peak_tflops.filter(|peak| !(peak.is_finite() && *peak > 0.0)) {
            bail!("`run.peak_tflops` = {peak}: must be a positive number");
        }
        let (output, begin) = if args.resume {
            let output = OutputFolder::at(recipe.output.as_deref())?;
            let begin = resume::begin(&output, &recipe, section)?;
            (output, begin)
        } else {
            (OutputFolder::check(recipe.output.as_deref(), args.overwrite)?, Begin::Start)
        };
        let devices = device::open_all(device_name(args.device.name(), &recipe))?;
        let reduction = device::reduction(&devices, recipe.run.reduction)?;
        let train = if section == "sft" { recipe.sft.train } else { recipe.tapo.train };
        Ok(Self { stage: section, recipe, output, begin, train, devices, reduction })
    }

    /// Makes the output folder and leaves the whole recipe in it, defaults and overrides included. What an earlier run left
    /// in it goes, unless this one continues it. No other run may write into it while the result is held.
    ///
    /// # Errors
    /// If it cannot be written, or another run writes into it.
    pub fn start(&self) -> anyhow::Result<Option<File>> {
        self.output.create()?;
        let lock = self.output.lock()?;
        if self.begin != Begin::Start {
            self.output.remove(&[])?;
            return Ok(lock);
        }
        self.output.remove(&resume::LEFT_BEHIND)?;
        self.output.write("recipe.toml", self.recipe.to_toml()?.as_bytes())?;
        self.output.write(INPUTS, &inputs::describe(&self.recipe, self.stage)?)?;
        Ok(lock)
    }

    /// The devices as training uses them: with gradients, the first and the others.
    pub fn split_devices(&self) -> (Device, Vec<Device>) {
        let mut devices = self.devices.iter().map(|open| open.device.clone().autodiff());
        let first = devices.next().unwrap_or_default();
        (first, devices.collect())
    }

    /// The weights that the run begins with.
    ///
    /// # Errors
    /// Those of [`Checkpoint::load`], and settings of adapters that do not fit the model.
    pub fn load(&self, checkpoint: &Checkpoint, device: &Device) -> anyhow::Result<Qwen25Vl> {
        match &self.begin {
            Begin::GoOn { folder, .. } if self.recipe.lora.is_on() => {
                Ok(self.load_start(checkpoint, device)?.with_adapter(&Checkpoint::adapter(folder))?)
            }
            Begin::GoOn { folder, .. } => checkpoint.load_from(&Keeper::weights(folder), device),
            Begin::Start | Begin::Finished => self.load_start(checkpoint, device),
        }
    }

    /// The weights that the run began with at its first step, and adapters that change nothing yet.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_start(&self, checkpoint: &Checkpoint, device: &Device) -> anyhow::Result<Qwen25Vl> {
        let model = checkpoint.load(device)?.with_lora(&self.recipe.lora, self.train)?;
        Ok(initialise_adapters(model, &StreamKey::new(self.recipe.seed)))
    }

    /// Says on standard error what of the model learns.
    pub fn note_trainable(&self, model: &Qwen25Vl) {
        let kinds = trainable(&model.clone().with_trainable(self.train));
        let row = |name: &str, parameters: usize, learning: usize| {
            let share = 100.0 * learning as f64 / parameters.max(1) as f64;
            eprintln!("{name:<22} {parameters:>14} {learning:>14} {share:>8.2} %");
        };
        eprintln!("{:<22} {:>14} {:>14} {:>10}", "part", "parameters", "learning", "share");
        for kind in &kinds {
            let adapters = if kind.adapters { ", adapters" } else { "" };
            row(&format!("{}{adapters}", kind.part.name()), kind.parameters, kind.learning);
        }
        let sum = |count: fn(&Trainable) -> usize| kinds.iter().map(count).sum();
        row("all", sum(|kind| kind.parameters), sum(|kind| kind.learning));
    }

    /// Says that there is nothing left to do.
    ///
    /// # Errors
    /// If nobody can be told.
    pub fn finished(&self) -> anyhow::Result<Outcome> {
        say(&format!("the run is at its end: {}", self.output.file("checkpoint").display()))?;
        Ok(Outcome::Done)
    }

    /// Opens a log of the run: a new one, or one that goes on at `end`.
    ///
    /// # Errors
    /// If it cannot be written, or is no log.
    pub fn log(&self, name: &str, end: Option<LogEnd>) -> Result<MetricsWriter, TrainError> {
        let path = self.output.file(name);
        match end {
            Some(end) => MetricsWriter::resume(path, end),
            None => MetricsWriter::create(path),
        }
    }

    /// Says how a run that was asked to stop goes on.
    ///
    /// # Errors
    /// If nobody can be told.
    pub fn interrupted(&self, stage: &str, done: &str, saved: &Path) -> anyhow::Result<Outcome> {
        let recipe = self.output.file("recipe.toml");
        say(&format!(
            "stopped after {done}, saved in {}; to go on: fieldmark {stage} -c {} --resume",
            saved.display(),
            recipe.display()
        ))?;
        Ok(Outcome::Interrupted)
    }
}

/// Names the samples of an update that could not be made.
pub fn note_skipped(display: &mut Display, update: usize, norm: f64, loss: f64, samples: &[String]) {
    if loss.is_finite() && norm.is_finite() {
        return;
    }
    let named = if samples.is_empty() { "no micro-batch alone".into() } else { samples.join(", ") };
    display.note(format!(
        "update {update} skipped: its loss or gradient is not finite (loss {loss}, gradient norm {norm}); from: {named}"
    ));
}

/// Refuses number formats in which training goes wrong.
fn check_formats(recipe: &Recipe, section: &str) -> anyhow::Result<()> {
    let adamw = if section == "sft" { recipe.sft.adamw } else { recipe.tapo.adamw };
    let parts = recipe.model.parts;
    let formats = [
        ("model.dtype", Some(recipe.model.dtype)),
        ("model.parts.vision", parts.vision),
        ("model.parts.projector", parts.projector),
        ("model.parts.decoder", parts.decoder),
    ];
    for (key, format) in formats {
        match format {
            Some(WeightType::F16) => bail!(
                "`{key}` = f16: small gradients vanish in f16, and the loss is not scaled against that; train in \
                 \"bf16\" or \"f32\" (eval and ask may use f16)"
            ),
            Some(WeightType::Bf16) if adamw.half == HalfWeights::None => bail!(
                "`{key}` = bf16 and `{section}.adamw.half` = none: a bf16 weight rounds its updates away; keep the \
                 rest of it with half = \"master\" or \"kahan\""
            ),
            _ => {}
        }
    }
    Ok(())
}

/// The device of the command line, else that of the recipe, else the default.
///
/// # Errors
/// If it is unknown or does not start.
pub fn open_device(wanted: Option<&str>, recipe: &Recipe) -> anyhow::Result<OpenDevice> {
    Ok(device::open(device_name(wanted, recipe))?)
}

fn device_name<'a>(wanted: Option<&'a str>, recipe: &'a Recipe) -> &'a str {
    let name = wanted.or(recipe.device.as_deref().filter(|name| !name.is_empty()));
    name.unwrap_or_else(|| device::default_name())
}

/// Makes every sample once and throws it away.
///
/// # Errors
/// The first that cannot be made.
pub fn try_samples(rows: usize, make: impl Fn(usize) -> Result<(), TrainError>) -> anyhow::Result<()> {
    let progress = Progress::new("check data", rows);
    for row in 0..rows {
        make(row)?;
        progress.step(row + 1, String::new());
    }
    progress.finish();
    Ok(())
}

/// An error about a setting of a section, with the whole key that a recipe has for it.
pub fn in_section(section: &str, error: TrainError) -> anyhow::Error {
    match error {
        TrainError::Setting { key, value, expected } => {
            anyhow!("`{}` = {value}: must be {expected}", Recipe::key_of(section, key))
        }
        other => other.into(),
    }
}

/// "3 min 20 s" since `start`.
pub fn elapsed(start: Instant) -> String {
    let seconds = start.elapsed().as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}
