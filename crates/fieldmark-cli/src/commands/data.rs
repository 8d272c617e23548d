//! `fieldmark data check` reads a whole data file, decodes its images, and counts rows, images, classes and problems.
//! `fieldmark data options` makes closed questions from a model's own answers to open ones.

use std::{
    fs::OpenOptions,
    io::{BufWriter, ErrorKind, Write},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, bail};
use fieldmark::{
    data::{ClosedRows, ImageRoots, RowImage, check_file_with},
    processor::DecodeOptions,
    source::open_image,
};

use super::{Outcome, say};
use crate::{
    arguments::{CheckArgs, OptionsArgs},
    display::Progress,
    tell::tell,
};

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

/// Writes the questions, and says what was left out.
///
/// # Errors
/// Returns an error if a file cannot be read, if the rollouts belong to other rows, if no question is left, or if the
/// output exists or cannot be written.
pub fn options(args: &OptionsArgs) -> anyhow::Result<Outcome> {
    let output = args.output.display();
    let ClosedRows { rows, only_right, unanswered } =
        ClosedRows::read(&args.rows, &args.rollouts, args.options as usize, args.seed)?;
    let total = rows.len() + only_right + unanswered;
    let left_out =
        format!("left out: {only_right} whose only answer is the right class, {unanswered} without a response");
    if rows.is_empty() {
        bail!("{}: no question is left of {total} rows; {left_out}", args.rollouts.display());
    }
    let file = match OpenOptions::new().write(true).create_new(true).open(&args.output) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{output}: already exists; give --output another name")
        }
        file => file.with_context(|| format!("{output}: cannot be written"))?,
    };
    let mut file = BufWriter::new(file);
    let written = rows.iter().try_for_each(|row| writeln!(file, "{row}")).and_then(|()| file.flush());
    written.with_context(|| format!("{output}: cannot be written"))?;
    if args.output.parent() != args.rows.parent() {
        tell(format_args!(
            "note: image paths in {output} are relative to the folder of {}; set data.images to it, or write the file \
             there",
            args.rows.display()
        ));
    }
    say(&format!("{output}: {} of {total} rows, with options; {left_out}", rows.len()))?;
    Ok(Outcome::Done)
}
