//! The folder of the demo: what may be in it, its lock, and whether the demo in it is the same.

use serde::{Deserialize, Serialize};

use super::{options::DemoOptions, produce::Produce};
use crate::{
    error::RunError,
    folder::{INPUTS, Inputs, Lock, RunFolder, Source},
};

/// The option of `fieldmark demo` that names the folder.
pub(super) const OPTION: &str = "--out DIR";
/// What the demo writes to its folder.
const NAMES: [&str; 7] = ["base", "sft", "tapo", "tapo-own", "report.md", SETTINGS, INPUTS];
/// The file with the options that decide the results.
const SETTINGS: &str = "demo.toml";

/// The options that decide the results.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    seed: u64,
    sft_epochs: usize,
    tapo_steps: usize,
}

impl Settings {
    fn of(options: &DemoOptions) -> Self {
        Self { seed: options.seed, sft_epochs: options.sft_epochs, tapo_steps: options.tapo_steps }
    }
}

/// Checks that the demo may write to its folder, and that it does not overwrite its photographs.
///
/// # Errors
/// Returns an error if the folder has files and the options say neither to resume nor to overwrite.
pub(super) fn check(options: &DemoOptions) -> Result<RunFolder, RunError> {
    let folder = RunFolder::given_by(OPTION, &options.out)?;
    folder.keep_apart(&NAMES, &[Source::data("--photos", &options.photos)])?;
    if !options.resume && !options.overwrite && !folder.is_empty()? {
        let problem = "is not empty; choose another folder with --out DIR, or add --resume to go on with the demo in \
                       it, or --overwrite to replace it";
        return Err(RunError::path(&options.out, problem));
    }
    Ok(folder)
}

/// Creates and locks the folder. Records the options and the photographs, or compares them if the demo is resumed.
///
/// # Errors
/// Returns an error if another command writes to the folder, or if the demo in it is another one.
pub(super) fn begin(folder: &RunFolder, options: &DemoOptions, produce: &Produce) -> Result<Lock, RunError> {
    folder.create()?;
    let lock = folder.lock()?;
    check(options)?;
    let (settings, list) = (folder.file(SETTINGS), folder.file(INPUTS));
    let table = produce.folder.root.join("labels.csv");
    let photographs: Vec<_> = produce.folder.photos.iter().map(|photo| produce.folder.file(photo)).collect();
    let inputs = Inputs::default().file("--photos", &table)?.photographs(photographs.iter().map(|file| &**file))?;
    let ours = Settings::of(options);
    if options.resume && settings.is_file() {
        let text = std::fs::read_to_string(&settings).map_err(RunError::io(&settings))?;
        let theirs: Settings = toml::from_str(&text).map_err(|error| RunError::path(&settings, error.message()))?;
        if theirs != ours {
            let Settings { seed, sft_epochs, tapo_steps } = theirs;
            let problem = format!(
                "is of a demo with other options; resume it with --seed {seed} --sft-epochs {sft_epochs} --tapo-steps \
                 {tapo_steps}, or choose another folder with --out DIR"
            );
            return Err(RunError::path(settings, problem));
        }
        inputs.check_files(&list)?;
        inputs.check_photographs(&list, &[])?;
    }
    folder.write(SETTINGS, toml::to_string(&ours)?.as_bytes())?;
    folder.write(INPUTS, &inputs.to_json()?)?;
    Ok(lock)
}
