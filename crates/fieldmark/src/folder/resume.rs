//! `--resume`: finds the checkpoint from which the run in a folder continues. A run that is never stopped, one that is
//! killed and resumed, and one that never saved all end with the same files.

use std::path::PathBuf;

use fieldmark_train::trainer::Mark;

use super::{
    checkpoints::Checkpoints,
    inputs::{INPUTS, Inputs},
    replaced::{LEFT_BEHIND, RUN},
    run_folder::RunFolder,
};
use crate::{
    Stage,
    error::RunError,
    recipe::{READ, Recipe},
};

/// The point at which a run begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// At the first step.
    Start,
    /// At the checkpoint in this folder.
    Continue {
        /// The checkpoint's folder.
        folder: PathBuf,
        /// Position of the checkpoint in the run.
        mark: Mark,
    },
    /// Nowhere: the run is finished.
    Finished,
}

/// Keys that do not change the results of a run of the stage. `tapo.workers` is not among them: it decides which
/// prompts are decoded together, and rounding may depend on that.
fn neutral(stage: Stage) -> &'static [&'static str] {
    match stage {
        Stage::Sft => {
            &["output", "device", "run", "data.check", "eval", "tapo", "data.tapo", "model.text_encoder", "sft.workers"]
        }
        Stage::Tapo => &["output", "device", "run", "data.check", "eval", "sft", "data.sft"],
    }
}

impl RunFolder {
    /// Returns the checkpoints of the run.
    pub fn checkpoints(&self) -> Checkpoints {
        Checkpoints::new(self.file("checkpoints"))
    }

    /// Finds where the run in this folder continues: at its newest whole checkpoint, unless the run is finished. Calls
    /// `note` for each damaged checkpoint.
    ///
    /// # Errors
    /// Returns an error if the checkpoints cannot be read.
    pub fn newest(&self, note: &mut dyn FnMut(String)) -> Result<Begin, RunError> {
        // While a run overwrites another one, the model in its place is still the other's.
        if self.file("checkpoint").is_dir() && !self.has_aside(RUN) {
            return Ok(Begin::Finished);
        }
        let checkpoints = self.checkpoints();
        match checkpoints.newest_whole(|damage| note(format!("{damage}; an earlier checkpoint is used")))? {
            Some(mark) => Ok(Begin::Continue { folder: checkpoints.path(mark), mark }),
            None => {
                note(format!("{}: has no whole checkpoint, so the run starts again", self.path().display()));
                Ok(Begin::Start)
            }
        }
    }

    /// Like [`Self::newest`], but first checks that the folder holds a run of `recipe`. `inputs` reads what the run
    /// reads, photographs excepted. Where paths differ, their content must not.
    ///
    /// The caller must hold the lock of the folder, because what a killed run was about to replace is put back first.
    ///
    /// # Errors
    /// Returns an error if the folder holds something else, or if the recipe or an input changed since the run started.
    pub fn resume(
        &self,
        recipe: &Recipe,
        stage: Stage,
        inputs: impl FnOnce() -> Result<Inputs, RunError>,
        note: &mut dyn FnMut(String),
    ) -> Result<Begin, RunError> {
        let ours = self.file("recipe.toml");
        if !ours.is_file() {
            self.put_back(RUN)?;
        }
        if !ours.is_file() {
            if LEFT_BEHIND.iter().any(|name| self.file(name).exists()) || !self.only_hidden()? {
                let problem =
                    "has no recipe.toml, so there is no run to resume; choose another folder with --set output=DIR";
                return Err(RunError::path(self.path(), problem));
            }
            note(format!("{}: there is nothing to resume, so the run starts", self.path().display()));
            return Ok(Begin::Start);
        }
        let other = if self.file("rollouts.jsonl").exists() { Stage::Tapo } else { Stage::Sft };
        if other != stage && self.file("metrics.jsonl").exists() {
            let (found, wanted) = (other.section(), stage.section());
            let problem =
                format!("holds a run of `{found}`, not of `{wanted}`; choose another folder with --set output=DIR");
            return Err(RunError::path(self.path(), problem));
        }
        let saved = Recipe::read(&[ours], &[])?.with_absolute_paths();
        let given = recipe.clone().with_absolute_paths();
        let list = self.file(INPUTS);
        let mut ignored = neutral(stage).to_vec();
        let is_elsewhere = saved.difference(&given, &ignored).is_some();
        if Inputs::are_by_key(&list)? {
            ignored.extend(READ);
        }
        if let Some(found) = saved.difference(&given, &ignored) {
            return Err(RunError::OtherRecipe {
                folder: self.path().into(),
                file: "recipe.toml",
                key: found.key,
                given: found.second,
                saved: found.first,
            });
        }
        let begin = self.newest(note)?;
        if matches!(begin, Begin::Continue { .. }) || (begin == Begin::Finished && is_elsewhere) {
            inputs()?.check_files(&list)?;
        }
        Ok(begin)
    }

    /// Returns true if the folder holds only hidden files, which a run that was killed at once may have left.
    pub(crate) fn only_hidden(&self) -> Result<bool, RunError> {
        if self.is_empty()? {
            return Ok(true);
        }
        for entry in std::fs::read_dir(self.path()).map_err(RunError::io(self.path()))? {
            let entry = entry.map_err(RunError::io(self.path()))?;
            if !entry.file_name().to_string_lossy().starts_with('.') {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
