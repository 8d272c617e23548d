//! `fieldmark demo`: SFT and TAPO in a world of look-alikes whose base model is there, or from nothing on photographs.

use std::path::{Path, PathBuf};

use anyhow::bail;
use fieldmark::{
    field_guide::{self, DemoOptions, Reuse, StudyOptions, WORLD},
    train::trainer::Interrupt,
};

use super::{Outcome, assets::asset, photos, say, stopped};
use crate::{arguments::DemoArgs, display::StageDisplay, signals::Listener};

/// Runs the demo and prints its table.
///
/// # Errors
/// Returns an error if the base model or the photographs cannot be read, or the output cannot be written.
pub fn run(args: &DemoArgs) -> anyhow::Result<Outcome> {
    if let Some(given) = &args.photos {
        return photos::run(args, given.as_deref());
    }
    let base = base(args.base.as_deref())?;
    let interrupt = Interrupt::new();
    let _listener = Listener::new("step", interrupt.clone())?;
    if args.full {
        return study(args, &base, interrupt);
    }
    let options = DemoOptions {
        base,
        out: args.out.clone(),
        reuse: Reuse { resume: args.resume, overwrite: args.overwrite },
        seed: args.seed,
        pictures: args.pictures,
        tapo_epochs: args.tapo_epochs,
        device: args.device.name().map(str::to_owned),
        interrupt,
    };
    let outcome = field_guide::demo(&options, &mut StageDisplay::default())?;
    let Some(report) = outcome.report else { return Ok(stopped(&args.out)) };
    say(outcome.table.trim_end())?;
    say(&format!("the report: {}", report.display()))?;
    say(&format!("the curves of TAPO: {}", outcome.tapo.join("reward.svg").display()))?;
    Ok(Outcome::Done)
}

/// Runs the study and prints its table.
fn study(args: &DemoArgs, base: &Path, interrupt: Interrupt) -> anyhow::Result<Outcome> {
    let options = StudyOptions {
        base: base.into(),
        out: args.out.clone(),
        reuse: Reuse { resume: args.resume, overwrite: args.overwrite },
        seed: args.seed,
        seeds: args.seeds,
        arms: args.arms.clone(),
        pictures: args.pictures,
        tapo_epochs: args.tapo_epochs,
        device: args.device.name().map(str::to_owned),
        interrupt,
    };
    let outcome = field_guide::study(&options, &mut StageDisplay::default())?;
    say(outcome.table.trim_end())?;
    if outcome.stopped {
        return Ok(stopped(&args.out));
    }
    say(&format!("the report: {}", outcome.report.display()))?;
    Ok(Outcome::Done)
}

/// Returns the given base model, or else that of the repository.
fn base(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    match given.map(Path::to_path_buf).or_else(|| asset("field-guide/base", WORLD)) {
        Some(folder) => Ok(folder),
        None => bail!(
            "assets/field-guide was not found here; run the demo in the repository, or train a base model with `fieldmark \
             base --out runs/base` and give it with --base runs/base/model"
        ),
    }
}
