//! `fieldmark data check`: reads a whole data file, decodes its images, and counts rows, images, classes and problems.

use std::sync::{Mutex, PoisonError};

use anyhow::bail;
use fieldmark::{
    data::{ImageRoots, RowImage, check_file_with},
    processor::DecodeOptions,
    source::open_image,
};

use super::{Outcome, say};
use crate::{arguments::CheckArgs, display::Progress};

/// Fewer images are decoded in a moment, and need no progress.
const MANY: usize = 200;

/// Reads and reports.
///
/// # Errors
/// Returns an error if the file cannot be read, or if it has problems; they are listed first.
pub fn check(args: &CheckArgs) -> anyhow::Result<Outcome> {
    if let Some(folder) = args.images.as_ref().filter(|folder| !folder.is_dir()) {
        bail!("{}: not a folder; --images must name the folder that image paths are relative to", folder.display());
    }
    let roots = args.images.as_ref().map(ImageRoots::new);
    let progress = Mutex::new(None);
    let decode = |image: &RowImage, begun: usize, total: usize| {
        if total >= MANY {
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            progress.get_or_insert_with(|| Progress::new("decode", total)).step(begun, String::new());
        }
        let error = open_image(image, &DecodeOptions::default()).err()?.to_string();
        // The row's problem names the file.
        Some(error.strip_prefix(&format!("{}: ", image.name())).map_or(error.clone(), str::to_owned))
    };
    let report = check_file_with(&args.file, roots.as_ref(), &decode)?;
    if let Some(progress) = progress.into_inner().unwrap_or_else(PoisonError::into_inner) {
        progress.finish();
    }
    say(&report.to_string())?;
    match report.problems.len() {
        0 => Ok(Outcome::Done),
        1 => bail!("{}: 1 problem, listed above with its row", args.file.display()),
        problems => bail!("{}: {problems} problems, listed above with their rows", args.file.display()),
    }
}
