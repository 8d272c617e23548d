//! `fieldmark data check`: reads any data file whole and says how many rows, images, classes and problems it has.

use anyhow::bail;
use fieldmark::data::{ImageRoots, check_file};

use super::{Outcome, say};
use crate::arguments::CheckArgs;

/// Reads and reports.
///
/// # Errors
/// A file that cannot be read as a whole, or that has problems; these are listed first.
pub fn check(args: &CheckArgs) -> anyhow::Result<Outcome> {
    if let Some(folder) = args.images.as_ref().filter(|folder| !folder.is_dir()) {
        bail!("{}: no such folder; name the folder that image paths are relative to", folder.display());
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
