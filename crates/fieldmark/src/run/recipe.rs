//! From a recipe to a run: devices, folder and number formats, checked before any data is read.

use std::path::PathBuf;

use fieldmark_model::WeightType;
use fieldmark_train::{
    TrainError,
    optim::{AdamWSettings, HalfWeights},
};

use super::{Observer, RunEvent, RunSetup};
use crate::{
    Stage,
    device::{self, OpenDevice},
    error::RunError,
    folder::{Begin, INPUTS, Inputs, RunFolder},
    recipe::Recipe,
};

/// A recipe, and what the command line says besides it.
#[derive(Debug, Clone)]
pub struct RecipeRun {
    /// The recipe.
    pub recipe: Recipe,
    /// Devices instead of the recipe's, with commas between them.
    pub device: Option<String>,
    /// Whether the run may write to a folder that is not empty.
    pub overwrite: bool,
    /// Whether the run in the folder is continued.
    pub resume: bool,
    /// A shared flag that stops the run after the current step.
    pub interrupt: fieldmark_train::trainer::Interrupt,
}

impl RecipeRun {
    /// A run of `recipe` from the first step.
    pub fn new(recipe: Recipe) -> Self {
        let interrupt = fieldmark_train::trainer::Interrupt::new();
        Self { recipe, device: None, overwrite: false, resume: false, interrupt }
    }

    /// The names of the devices: those given, else the recipe's, else the default.
    pub fn device_names(&self) -> &str {
        let recipe = self.recipe.device.as_deref().filter(|name| !name.is_empty());
        self.device.as_deref().or(recipe).unwrap_or_else(|| device::default_name())
    }

    /// Checks what both stages have in common, looks at the folder, and opens the devices.
    ///
    /// # Errors
    /// Returns the first error found.
    pub(super) fn setup(
        &self,
        stage: Stage,
        adamw: AdamWSettings,
        inputs: Vec<PathBuf>,
        observer: &mut dyn Observer,
    ) -> Result<RunSetup, RunError> {
        let recipe = &self.recipe;
        check_formats(recipe, stage, adamw)?;
        let mut setup = RunSetup {
            seed: recipe.seed,
            lora: recipe.lora.clone(),
            settings: recipe.run,
            interrupt: self.interrupt.clone(),
            ..RunSetup::on(self.folder()?, Vec::new())
        };
        setup.validate()?;
        if self.resume {
            let mut notes = Vec::new();
            let resumed =
                setup.folder.resume(recipe, stage, || Inputs::of(inputs.clone()), &mut |note| notes.push(note));
            notes.iter().try_for_each(|note| observer.event(RunEvent::Note(note)))?;
            setup.begin = resumed?;
        }
        let opened = device::open_all(self.device_names())?;
        setup.reduction = device::reduction(&opened, recipe.run.reduction)?;
        setup.devices = opened.into_iter().map(|OpenDevice { device, .. }| device).collect();
        if setup.begin == Begin::Start {
            setup.records = vec![
                ("recipe.toml".into(), recipe.to_toml()?.into_bytes()),
                (INPUTS.into(), Inputs::of(inputs)?.to_json()?),
            ];
        }
        Ok(setup)
    }

    fn folder(&self) -> Result<RunFolder, RunError> {
        let path = self.recipe.output.as_deref();
        if self.resume { RunFolder::at(path) } else { RunFolder::check(path, self.overwrite) }
    }
}

/// Refuses number formats in which training goes wrong.
fn check_formats(recipe: &Recipe, stage: Stage, adamw: AdamWSettings) -> Result<(), RunError> {
    let parts = recipe.model.parts;
    let formats = [
        ("model.dtype", Some(recipe.model.dtype)),
        ("model.parts.vision", parts.vision),
        ("model.parts.projector", parts.projector),
        ("model.parts.decoder", parts.decoder),
    ];
    for (key, format) in formats {
        let refuse =
            |value: &str, problem: String| Err(RunError::Setting { key: key.into(), value: value.into(), problem });
        match format {
            Some(WeightType::F16) => {
                let problem = "small gradients vanish in f16, and the loss is not scaled against that; train in \"bf16\" or \
                               \"f32\" (eval and ask may use f16)";
                return refuse("f16", problem.into());
            }
            Some(WeightType::Bf16) if adamw.half == HalfWeights::None => {
                let problem = format!(
                    "with `{}.adamw.half` = none a bf16 weight rounds its updates away; keep the rest of each weight with \
                     half = \"master\" or \"kahan\"",
                    stage.section()
                );
                return refuse("bf16", problem);
            }
            _ => {}
        }
    }
    Ok(())
}

/// An error about a setting of a stage, with the whole key that a recipe has for it.
pub(super) fn in_section(stage: Stage, error: TrainError) -> RunError {
    match error {
        TrainError::Setting { key, value, expected } => RunError::Setting {
            key: Recipe::key_of(stage.section(), key),
            value,
            problem: format!("must be {expected}"),
        },
        other => other.into(),
    }
}

impl RunError {
    /// The same error; one about a setting of a stage has its whole key.
    pub(super) fn in_section(self, stage: Stage) -> Self {
        match self {
            Self::Train(error) => in_section(stage, error),
            other => other,
        }
    }
}
