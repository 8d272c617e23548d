//! Prepares a run from a recipe: checks number formats, folder and devices before any data is read.

use fieldmark_model::WeightType;
use fieldmark_train::{
    TrainError,
    optim::{AdamWSettings, HalfWeights},
};

use super::{
    Observer, RunEvent, RunSetup,
    inputs::{self, sources},
};
use crate::{
    Stage,
    device::{self, OpenDevice},
    error::RunError,
    folder::{Begin, LEFT_BEHIND, RUN, RunFolder},
    recipe::Recipe,
};

/// A recipe, and the options of its run that are not in the recipe.
#[derive(Debug, Clone)]
pub struct RecipeRun {
    /// The recipe.
    pub recipe: Recipe,
    /// The devices, comma-separated, instead of the recipe's.
    pub device: Option<String>,
    /// Whether the run may write to a folder that is not empty.
    pub overwrite: bool,
    /// Whether to resume the run in the folder.
    pub resume: bool,
    /// A shared flag that stops the run after the current step.
    pub interrupt: fieldmark_train::trainer::Interrupt,
}

impl RecipeRun {
    /// Creates a run of `recipe` that starts at the first step.
    pub fn new(recipe: Recipe) -> Self {
        let interrupt = fieldmark_train::trainer::Interrupt::new();
        Self { recipe, device: None, overwrite: false, resume: false, interrupt }
    }

    /// Returns the names of the devices: [`Self::device`], or else the recipe's, or else the default.
    pub fn device_names(&self) -> &str {
        let recipe = self.recipe.device.as_deref().filter(|name| !name.is_empty());
        self.device.as_deref().or(recipe).unwrap_or_else(|| device::default_name())
    }

    /// Checks the settings that both stages share, locks the folder, finds where the run begins, and opens the devices.
    ///
    /// # Errors
    /// Returns the first error found.
    pub(super) fn setup(
        &self,
        stage: Stage,
        adamw: AdamWSettings,
        observer: &mut dyn Observer,
    ) -> Result<RunSetup, RunError> {
        let recipe = &self.recipe;
        check_formats(recipe, stage, adamw)?;
        let mut setup = RunSetup {
            seed: recipe.seed,
            lora: recipe.lora.clone(),
            settings: recipe.run,
            interrupt: self.interrupt.clone(),
            resumes: self.resume,
            ..RunSetup::on(self.folder()?, Vec::new())
        };
        setup.validate()?;
        setup.folder.keep_apart(&LEFT_BEHIND, &sources(recipe, stage))?;
        setup.lock = setup.lock()?;
        setup.folder.check_writable(RUN)?;
        if self.resume {
            let mut notes = Vec::new();
            let resumed =
                setup.folder.resume(recipe, stage, || inputs::read(recipe, stage), &mut |note| notes.push(note));
            notes.iter().try_for_each(|note| observer.event(RunEvent::Note(note)))?;
            setup.begin = resumed?;
        }
        let opened = device::open_all(self.device_names())?;
        setup.reduction = device::reduction(&opened, recipe.run.reduction)?;
        setup.devices = opened.into_iter().map(|OpenDevice { device, .. }| device).collect();
        if setup.begin == Begin::Start {
            let recipe = recipe.clone().with_absolute_paths();
            setup.records = vec![("recipe.toml".into(), recipe.to_toml()?.into_bytes())];
        }
        Ok(setup)
    }

    fn folder(&self) -> Result<RunFolder, RunError> {
        let path = self.recipe.output.as_deref();
        let may_hold_a_run = self.resume && !RunFolder::at(path)?.is_empty()?;
        if may_hold_a_run { RunFolder::at(path) } else { RunFolder::check(path, self.overwrite) }
    }
}

/// Refuses number formats in which training fails.
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
                let problem = "small gradients become 0 in f16, because the loss is not scaled; train in \"bf16\" or \
                               \"f32\" (eval and ask may use f16)";
                return refuse("f16", problem.into());
            }
            Some(WeightType::Bf16) if adamw.half == HalfWeights::None => {
                let problem = format!(
                    "with `{}.adamw.half` = none, updates of bf16 weights are lost to rounding; use half = \"master\" \
                     or \"kahan\"",
                    stage.section()
                );
                return refuse("bf16", problem);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Gives an error about a setting of a stage the full recipe key.
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
    /// Gives an error about a setting of a stage the full recipe key.
    pub(super) fn in_section(self, stage: Stage) -> Self {
        match self {
            Self::Train(error) => in_section(stage, error),
            other => other,
        }
    }
}
