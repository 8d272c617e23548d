//! `fieldmark parity`: every tensor of a reference folder against ours.

use anyhow::bail;
use fieldmark::device;
use fieldmark_parity::parity;

use super::{Outcome, say};
use crate::arguments::ParityArgs;

/// Compares and reports.
///
/// # Errors
/// A folder that cannot be read.
pub fn run(args: &ParityArgs) -> anyhow::Result<Outcome> {
    if !args.folder.is_dir() {
        bail!("{}: no such folder; name a folder in the form of the reference fixtures", args.folder.display());
    }
    let device = device::open(args.device.name().unwrap_or_else(|| device::default_name()))?;
    let report = parity(&args.folder, args.tokenizer.as_deref(), &device.device)?;
    say(report.to_string().trim_end())?;
    Ok(if report.passed() { Outcome::Done } else { Outcome::Failed })
}
