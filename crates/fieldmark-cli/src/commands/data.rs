//! `fieldmark data check`: reads a whole data file and counts its rows, images, classes and problems.

use anyhow::bail;
use fieldmark::data::{ImageRoots, check_file};

use super::{Outcome, say};
use crate::arguments::CheckArgs;

/// Reads and reports.
///
/// # Errors
/// Returns an error if the file cannot be read, or if it has problems; they are listed first.
pub fn check(args: &CheckArgs) -> anyhow::Result<Outcome> {
    if let Some(folder) = args.images.as_ref().filter(|folder| !folder.is_dir()) {
        bail!("{}: not a folder; --images must name the folder that image paths are relative to", folder.display());
    }
    let roots = args.images.as_ref().map(ImageRoots::new);
    let report = check_file(&args.file, roots.as_ref())?;
    say(&report.to_string())?;
    match report.problems.len() {
        0 => Ok(Outcome::Done),
        1 => bail!("{}: 1 problem, listed above with its row", args.file.display()),
        problems => bail!("{}: {problems} problems, listed above with their rows", args.file.display()),
    }
}
