//! `fieldmark world`: writes a world as files, with the recipes that train on it.

use std::path::{Path, PathBuf};

use fieldmark_train::trainer::Interrupt;
use fieldmark_world::{ExportConfig, World, WorldConfig};

use super::guide_folder::{OPTION, write_world};
use crate::{
    error::RunError,
    folder::RunFolder,
    init::NewModel,
    run::{Observer, RunEvent},
};

/// How a world is written.
#[derive(Debug, Clone)]
pub struct WorldOptions {
    /// Which species there are.
    pub world: WorldConfig,
    /// Their pictures and rows.
    pub export: ExportConfig,
    /// The folder, which must not exist or be empty.
    pub out: PathBuf,
    /// A shared flag that stops the writing.
    pub interrupt: Interrupt,
}

/// Writes a world. The folder appears whole or not at all; returns `None` if the writing was stopped.
///
/// # Errors
/// Returns an error if there is no such world, if the folder is not empty, or if a file cannot be written.
pub fn world(options: &WorldOptions, observer: &mut dyn Observer) -> Result<Option<PathBuf>, RunError> {
    NewModel::check_folder(&options.out)?;
    let world = World::new(options.world)?;
    let parent = options.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = options.out.file_name().unwrap_or_default().to_string_lossy();
    let parent = RunFolder::given_by(OPTION, parent)?;
    parent.create()?;
    observer.event(RunEvent::Stage("world"))?;
    write_world(&parent, &world, &options.export, &name, &options.interrupt, observer)
}
