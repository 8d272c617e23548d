//! `fieldmark demo --photos`: trains a model from nothing on photographs and prints its scores.

use std::path::{Path, PathBuf};

use anyhow::bail;
use fieldmark::{
    demo::{self, DemoOptions},
    device,
    train::trainer::Interrupt,
};

use super::{Outcome, assets::asset, say, stopped};
use crate::{arguments::DemoArgs, display::StageDisplay, signals::Listener};

/// Runs the demo on the photographs in `given`, or on those of the repository, and prints its table.
///
/// # Errors
/// Returns an error if the photographs cannot be read or the output cannot be written.
pub(super) fn run(args: &DemoArgs, given: Option<&Path>) -> anyhow::Result<Outcome> {
    let device = device::open(args.device.name().unwrap_or_else(|| device::default_name()))?;
    let interrupt = Interrupt::new();
    let _listener = Listener::new("step", interrupt.clone())?;
    let options = DemoOptions {
        photos: photos(given)?,
        judge: given.is_none(),
        out: args.out.clone(),
        decode: args.decode.options(),
        seed: args.seed,
        sft_epochs: args.sft_epochs,
        tapo_steps: args.tapo_steps,
        ablation: args.ablation,
        resume: args.resume,
        overwrite: args.overwrite,
        device: device.device,
        device_name: device.name,
        interrupt,
    };
    let outcome = demo::run(&options, &mut StageDisplay::default())?;
    if outcome.stopped {
        return Ok(stopped(&args.out));
    }
    say(outcome.report.trim_end())?;
    for missed in &outcome.missed {
        say(&format!("missed its mark: {missed}"))?;
    }
    Ok(if outcome.missed.is_empty() { Outcome::Done } else { Outcome::Failed })
}

/// Returns the given folder, or else that of the repository.
fn photos(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    match given.map(Path::to_path_buf).or_else(|| asset("produce", "labels.csv")) {
        Some(folder) => Ok(folder),
        None => bail!(
            "assets/produce was not found here; run the command in the repository, or give a folder with --photos DIR. {}",
            demo::PHOTOGRAPHS
        ),
    }
}
