//! What `fieldmark sft` and `fieldmark tapo` have in common: recipe, device, and trying every sample before the first update.

use std::time::Instant;

use anyhow::{anyhow, bail};
use fieldmark::{
    device::{self, OpenDevice},
    progress::Progress,
    recipe::{Recipe, WeightType},
    train::TrainError,
};

use super::{RunArgs, output::OutputFolder};

/// A run that is ready to read its data.
pub struct Prepared {
    /// The recipe with its overrides.
    pub recipe: Recipe,
    /// The output folder, not yet made.
    pub output: OutputFolder,
    /// The device.
    pub device: OpenDevice,
}

impl Prepared {
    /// Reads the recipe and checks its settings with `validate`, those of `section`; then checks the output folder and
    /// opens the device.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn new(
        args: &RunArgs,
        section: &str,
        validate: impl FnOnce(&Recipe) -> Result<(), TrainError>,
    ) -> anyhow::Result<Self> {
        let recipe = Recipe::read(&args.config, &args.set)?;
        validate(&recipe).map_err(|error| in_section(section, error))?;
        let half = match recipe.model.dtype {
            WeightType::F32 => None,
            WeightType::F16 => Some("f16"),
            WeightType::Bf16 => Some("bf16"),
        };
        if let Some(half) = half {
            // Nothing keeps an f32 copy of the weights, and a relative change below 2^-9 leaves a bf16 weight as it is.
            bail!(
                "`model.dtype` = {half}: training rounds its updates away in {half}; use \"f32\" (eval and ask may use \
                 {half})"
            );
        }
        let output = OutputFolder::check(recipe.output.as_deref(), args.overwrite)?;
        let device = open_device(args.device.name(), &recipe)?;
        Ok(Self { recipe, output, device })
    }

    /// Makes the output folder and leaves the whole recipe in it, defaults and overrides included.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn start(&self) -> anyhow::Result<()> {
        self.output.create()?;
        self.output.write("recipe.toml", self.recipe.to_toml()?.as_bytes())
    }
}

/// The device of the command line, else that of the recipe, else the default.
///
/// # Errors
/// If it is unknown or does not start.
pub fn open_device(wanted: Option<&str>, recipe: &Recipe) -> anyhow::Result<OpenDevice> {
    let name = wanted.or(recipe.device.as_deref().filter(|name| !name.is_empty()));
    Ok(device::open(name.unwrap_or_else(|| device::default_name()))?)
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
