//! `--resume`: what the output folder holds, and whether it is the same run. A run that is not stopped, one that is killed
//! and resumed, and one that never saved all end in the same files.

use std::path::PathBuf;

use anyhow::bail;
use fieldmark::{
    recipe::Recipe,
    train::{Checkpoints, Mark},
};

use super::{
    inputs::{self, INPUTS},
    instruments::TENSORBOARD,
    output::OutputFolder,
};

/// Where a run begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// At the first step.
    Start,
    /// At the checkpoint in this folder.
    GoOn {
        /// The folder.
        folder: PathBuf,
        /// Its place in the run.
        mark: Mark,
    },
    /// Nowhere: it is at its end.
    Finished,
}

/// What a run of any stage leaves in its output folder.
pub const LEFT_BEHIND: [&str; 11] = [
    "checkpoint",
    "checkpoints",
    INPUTS,
    "loss.svg",
    "metrics.jsonl",
    "recipe.toml",
    "reward.svg",
    "rollouts.jsonl",
    TENSORBOARD,
    "timings.jsonl",
    "validation.jsonl",
];

/// Keys that change nothing in what a run of the stage computes. `tapo.workers` is none of them: it decides which prompts are
/// decoded side by side, and rounding may depend on that.
fn neutral(stage: &str) -> &'static [&'static str] {
    match stage {
        "sft" => {
            &["output", "device", "run", "data.check", "eval", "tapo", "data.tapo", "model.text_encoder", "sft.workers"]
        }
        _ => &["output", "device", "run", "data.check", "eval", "sft", "data.sft"],
    }
}

/// The checkpoints of a run.
pub fn checkpoints(output: &OutputFolder) -> Checkpoints {
    Checkpoints::new(output.file("checkpoints"))
}

/// Where the run of `recipe` begins that may already be in `output`. What is damaged is named on standard error.
///
/// # Errors
/// If the folder holds something else, or the run of another recipe.
pub fn begin(output: &OutputFolder, recipe: &Recipe, stage: &str) -> anyhow::Result<Begin> {
    let (place, ours) = (output.path().display(), output.file("recipe.toml"));
    let note = |text: String| eprintln!("note: {text}");
    if !ours.is_file() {
        if LEFT_BEHIND.iter().any(|name| output.file(name).exists()) || !only_hidden(output)? {
            bail!("{place}: has no recipe.toml, so it holds no run to resume; name another with --set output=DIR");
        }
        note(format!("{place}: nothing to resume, so the run starts"));
        return Ok(Begin::Start);
    }
    let other = if output.file("rollouts.jsonl").exists() { "tapo" } else { "sft" };
    if other != stage && output.file("metrics.jsonl").exists() {
        bail!("{place}: holds a run of `{other}`, not of `{stage}`; name another with --set output=DIR");
    }
    let saved = Recipe::read(&[ours], &[])?;
    if let Some(found) = saved.difference(recipe, neutral(stage)) {
        bail!(
            "`{}` = {}, but the run in {place} has {}: that is another run; give it a folder of its own with --set \
             output=DIR, or go on with -c {place}/recipe.toml",
            found.key,
            found.second,
            found.first,
        );
    }
    if output.file("checkpoint").is_dir() {
        return Ok(Begin::Finished);
    }
    let checkpoints = checkpoints(output);
    match checkpoints.newest_whole(|damage| note(format!("{damage}; an earlier checkpoint is used")))? {
        Some(mark) => {
            inputs::check(&output.file(INPUTS), recipe, stage)?;
            Ok(Begin::GoOn { folder: checkpoints.path(mark), mark })
        }
        None => {
            note(format!("{place}: no whole checkpoint, so the run starts over"));
            Ok(Begin::Start)
        }
    }
}

/// Whether there is nothing but what a run that was killed at once may have left.
fn only_hidden(output: &OutputFolder) -> anyhow::Result<bool> {
    if output.is_empty()? {
        return Ok(true);
    }
    for entry in std::fs::read_dir(output.path())? {
        if !entry?.file_name().to_string_lossy().starts_with('.') {
            return Ok(false);
        }
    }
    Ok(true)
}
