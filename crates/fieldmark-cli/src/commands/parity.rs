//! `fieldmark parity`: compares every tensor of a reference folder with ours.

use anyhow::bail;
use fieldmark::device;
use fieldmark_parity::parity;

use super::{Outcome, say};
use crate::arguments::ParityArgs;

/// Compares and reports.
///
/// # Errors
/// Returns an error if the folder cannot be read.
pub fn run(args: &ParityArgs) -> anyhow::Result<Outcome> {
    if !args.folder.is_dir() {
        bail!("{}: not a folder; name a folder laid out like the reference fixtures", args.folder.display());
    }
    let device = device::open(args.device.name().unwrap_or_else(|| device::default_name()))?;
    let report = parity(&args.folder, args.tokenizer.as_deref(), args.dtype, &device.device)?;
    say(report.to_string().trim_end())?;
    Ok(if report.passed() { Outcome::Done } else { Outcome::Failed })
}
