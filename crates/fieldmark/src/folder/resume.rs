//! `--resume`: finds the checkpoint from which the run in a folder continues. A run that is never stopped, one that is
//! killed and resumed, and one that never saved all end with the same files.

use std::path::PathBuf;

use fieldmark_model::Pretrained;
use fieldmark_train::trainer::Mark;

use super::{
    checkpoints::Checkpoints,
    hand_written::is_hand_written,
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

    /// Finds where the run in this folder continues: at its newest whole checkpoint, unless the run is finished, or at
    /// the first step if it has saved nothing yet. Calls `note` for each damaged checkpoint.
    ///
    /// # Errors
    /// Returns an error if the trained model or all checkpoints are damaged, or if the checkpoints cannot be read.
    pub fn newest(&self, note: &mut dyn FnMut(String)) -> Result<Begin, RunError> {
        let (checkpoints, mut damages) = (self.checkpoints(), Vec::new());
        // While a run overwrites another one, the model in its place is still the other's.
        if self.file("checkpoint").is_dir() && !self.has_aside(RUN) {
            return self.finished();
        }
        if let Some(mark) = checkpoints.newest_whole(|damage| damages.push(damage.to_string()))? {
            damages.iter().for_each(|damage| note(format!("{damage}; an earlier checkpoint is used")));
            return Ok(Begin::Continue { folder: checkpoints.path(mark), mark });
        }
        let saved = checkpoints.list()?.len();
        // The unfinished ones come first, then the newest.
        if let Some(newest) = damages.get(damages.len() - saved.min(damages.len()))
            && saved > 0
        {
            let problem = format!(
                "none of the {saved} checkpoints of the run is whole, and it does not start again over them. The newest: \
                 {newest}. Restore what is missing, or start again with --overwrite instead of --resume, which replaces \
                 them"
            );
            return Err(RunError::path(self.path(), problem));
        }
        damages.iter().for_each(|damage| note(damage.clone()));
        note(format!("{}: has no whole checkpoint, so the run starts again", self.path().display()));
        Ok(Begin::Start)
    }

    /// Checks that the model of a finished run is whole.
    fn finished(&self) -> Result<Begin, RunError> {
        let folder = self.file("checkpoint");
        let Err(damage) = Pretrained::open(&folder) else { return Ok(Begin::Finished) };
        let checkpoints = self.checkpoints();
        let how = match checkpoints.newest_whole(|_| ())? {
            Some(mark) => {
                format!("Remove {}, and --resume continues from {}", folder.display(), checkpoints.path(mark).display())
            }
            None => "Restore it, or start again with --overwrite instead of --resume".into(),
        };
        Err(RunError::Damaged {
            path: folder,
            reason: format!("the model of the finished run is damaged: {damage}. {how}"),
        })
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
        if is_hand_written(&ours) {
            let problem = format!(
                "was not written by a run, and this run would replace it; move it out of the folder, choose another folder \
                 with {}, or replace it with --overwrite instead of --resume",
                self.option()
            );
            return Err(RunError::path(ours, problem));
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
}
