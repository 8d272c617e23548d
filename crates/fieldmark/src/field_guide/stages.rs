//! One stage: a recipe of the world with the paths of this run, in a folder of its own. A stage that is finished is not run
//! again, and one that was stopped goes on.

use std::path::{Path, PathBuf};

use fieldmark_data::ClosedRows;
use fieldmark_eval::{Prediction, read_predictions};
use fieldmark_train::trainer::Interrupt;

use super::arms::SAMPLING;
use crate::{
    error::RunError,
    folder::write_whole,
    recipe::Recipe,
    run::{EvalOptions, Observer, Outcome, RecipeRun, RunEvent, eval_from_recipe, sft_from_recipe, tapo_from_recipe},
};

/// The file of the world with the triplets.
const TRIPLETS: &str = "tapo.jsonl";
/// Options of a question that is made of a model's own answers, as in DiVE-k.
const OPTIONS: usize = 5;

/// What all stages of a run share.
#[derive(Debug)]
pub(super) struct Stages {
    /// The folder of the world, with the recipes.
    pub(super) world: PathBuf,
    pub(super) seed: u64,
    pub(super) device: Option<String>,
    pub(super) interrupt: Interrupt,
}

impl Stages {
    /// SFT on the rows of a file of the world. Returns the model, or `None` if it was stopped.
    pub(super) fn sft(
        &self,
        start: &Path,
        rows: &str,
        out: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Option<PathBuf>, RunError> {
        let mut settings = self.settings(start, out);
        settings.push(set("data.sft.file", &self.world.join(rows)));
        self.train("sft.toml", &settings, out, observer, sft_from_recipe)
    }

    /// TAPO with settings that override those of the recipe. Returns the model, or `None` if it was stopped.
    pub(super) fn tapo(
        &self,
        start: &Path,
        overrides: &[String],
        out: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Option<PathBuf>, RunError> {
        let mut settings = self.settings(start, out);
        settings.push(set("data.tapo.file", &self.world.join(TRIPLETS)));
        settings.push(set("data.tapo.validation", &self.world.join("validation.jsonl")));
        settings.extend(overrides.iter().cloned());
        self.train("tapo.toml", &settings, out, observer, tapo_from_recipe)
    }

    /// Lets a model answer the open questions of the triplets, and writes the triplets again with options: what it answered
    /// most often (DiVE-k). Returns the file, or `None` if it was stopped.
    pub(super) fn confusions(
        &self,
        model: &Path,
        out: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Option<PathBuf>, RunError> {
        let settings: Vec<String> = SAMPLING.iter().map(|setting| (*setting).to_owned()).collect();
        if self.tapo(model, &settings, out, observer)?.is_none() {
            return Ok(None);
        }
        let rollouts = out.join("rollouts.jsonl");
        let ClosedRows { rows, .. } = ClosedRows::read(&self.world.join(TRIPLETS), &rollouts, OPTIONS, self.seed)?;
        if rows.is_empty() {
            return Err(RunError::path(rollouts, "has nothing that the model confuses: every answer is right"));
        }
        let file = out.with_extension("jsonl");
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        write_whole(&file, text.as_bytes())?;
        Ok(Some(file))
    }

    fn train(
        &self,
        recipe: &str,
        settings: &[String],
        out: &Path,
        observer: &mut dyn Observer,
        stage: impl FnOnce(RecipeRun, &mut dyn Observer) -> Result<Outcome, RunError>,
    ) -> Result<Option<PathBuf>, RunError> {
        observer.event(RunEvent::Stage(&name(out)))?;
        let recipe = self.recipe(recipe, settings)?;
        let run = RecipeRun {
            device: self.device.clone(),
            resume: out.exists(),
            interrupt: self.interrupt.clone(),
            ..RecipeRun::new(recipe)
        };
        Ok(stage(run, observer)?.checkpoint().cloned())
    }

    /// Asks a model the questions of the world's folder `questions`. Returns its answers, or `None` if it was stopped.
    pub(super) fn eval(
        &self,
        model: &Path,
        questions: &str,
        out: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Option<Vec<Prediction>>, RunError> {
        let mut settings = self.settings(model, out);
        let files = vec![toml::Value::String(self.world.join(questions).display().to_string())];
        settings.push(format!("eval.files={}", toml::Value::Array(files)));
        observer.event(RunEvent::Stage(&name(out)))?;
        let recipe = self.recipe("eval.toml", &settings)?;
        let options = EvalOptions {
            device: self.device.clone(),
            resume: out.exists(),
            interrupt: self.interrupt.clone(),
            ..EvalOptions::default()
        };
        let evaluated = eval_from_recipe(&recipe, &options, observer)?;
        if !evaluated.answered.is_finished() {
            return Ok(None);
        }
        Ok(Some(read_predictions(&evaluated.predictions)?.rows))
    }

    fn settings(&self, start: &Path, out: &Path) -> Vec<String> {
        vec![
            format!("seed={}", self.seed),
            set("model.path", start),
            set("output", out),
            set("data.images", &self.world),
        ]
    }

    fn recipe(&self, name: &str, settings: &[String]) -> Result<Recipe, RunError> {
        Ok(Recipe::read(&[self.world.join("recipes").join(name)], settings)?)
    }
}

/// An override that sets a path, whatever characters it has.
pub(super) fn set(key: &str, path: &Path) -> String {
    format!("{key}={}", toml::Value::String(path.display().to_string()))
}

/// The name of a stage on the screen: that of its folder.
fn name(out: &Path) -> String {
    out.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
