//! The folder of a demo, a study or a base model: its lock, whether it is the one that is resumed, and the worlds in it with
//! their recipes.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use fieldmark_train::trainer::Interrupt;
use fieldmark_world::{ExportConfig, World, WorldConfig, export};
use serde::{Deserialize, Serialize};

use super::base::WORLD;
use crate::{
    error::RunError,
    folder::{Lock, RunFolder, Source},
    run::{Observer, RunEvent},
};

/// The option that names the folder.
pub(super) const OPTION: &str = "--out DIR";
/// The file with the options that decide the results.
const SETTINGS: &str = "settings.toml";

/// The recipes of a world, by their file names.
const RECIPES: [(&str, &str); 3] = [
    ("sft.toml", include_str!("recipes/sft.toml")),
    ("tapo.toml", include_str!("recipes/tapo.toml")),
    ("eval.toml", include_str!("recipes/eval.toml")),
];

/// What may happen to a folder that is not empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reuse {
    /// Go on with what was stopped in it. Finished stages are not run again.
    pub resume: bool,
    /// Replace what is in it.
    pub overwrite: bool,
}

/// A folder that is open and locked.
#[derive(Debug)]
pub(super) struct GuideFolder {
    folder: RunFolder,
    _lock: Lock,
}

impl GuideFolder {
    /// Opens the folder and writes the settings, or compares them if the folder is resumed. `is_ours` tells by their names
    /// what the command writes: that is what `--overwrite` removes, after all checks. `sources` are what it reads.
    ///
    /// # Errors
    /// Returns an error if the folder holds something that `reuse` does not allow, if a source is in what would be
    /// overwritten, if another command writes to the folder, or if what is in it has other settings.
    pub(super) fn open<S: Serialize + for<'de> Deserialize<'de> + PartialEq>(
        path: &Path,
        reuse: Reuse,
        settings: &S,
        sources: &[Source],
        is_ours: impl Fn(&str) -> bool,
    ) -> Result<Self, RunError> {
        let folder = RunFolder::given_by(OPTION, path)?;
        let ours: Vec<String> = folder.names()?.into_iter().filter(|name| is_ours(name)).collect();
        let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
        folder.keep_apart(&ours, sources)?;
        if !reuse.resume && !reuse.overwrite && !folder.is_empty()? {
            let problem = "is not empty; choose another folder with --out DIR, or add --resume to go on with what is in \
                           it, or --overwrite to replace it";
            return Err(RunError::path(path, problem));
        }
        folder.create()?;
        let lock = folder.lock()?;
        let file = folder.file(SETTINGS);
        if file.is_file() && reuse.resume {
            let text = std::fs::read_to_string(&file).map_err(RunError::io(&file))?;
            let theirs: S = toml::from_str(&text).map_err(|error| RunError::path(&file, error.message()))?;
            if theirs != *settings {
                let problem = format!(
                    "is of a run with other options. To resume it, give these: {}. To start a new one, choose another \
                     folder with --out DIR",
                    text.trim().replace('\n', ", ")
                );
                return Err(RunError::path(file, problem));
            }
        }
        if !reuse.resume {
            folder.remove(&ours)?;
        }
        folder.write(SETTINGS, toml::to_string(settings)?.as_bytes())?;
        Ok(Self { folder, _lock: lock })
    }

    /// The path of something in the folder.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.file(name)
    }

    /// Writes a file. It appears whole or not at all.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, RunError> {
        self.folder.write(name, content)?;
        Ok(self.file(name))
    }

    /// Writes a subfolder, which appears whole or not at all.
    pub(super) fn write_folder(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> Result<(), RunError>,
    ) -> Result<PathBuf, RunError> {
        self.folder.write_folder(name, fill)
    }

    /// Writes a world as the folder `name`, unless it is there. Returns `None` if it was stopped.
    pub(super) fn world(
        &self,
        world: &World,
        config: &ExportConfig,
        name: &str,
        interrupt: &Interrupt,
        observer: &mut dyn Observer,
    ) -> Result<Option<PathBuf>, RunError> {
        let path = self.file(name);
        if path.join(WORLD).is_file() {
            return Ok(Some(path));
        }
        observer.event(RunEvent::Stage("world"))?;
        write_world(&self.folder, world, config, name, interrupt, observer)
    }
}

/// Writes a world as the subfolder `name`, which appears whole or not at all. Returns `None` if it was stopped.
///
/// # Errors
/// Returns an error if a setting is out of range or a file cannot be written.
pub(super) fn write_world(
    parent: &RunFolder,
    world: &World,
    config: &ExportConfig,
    name: &str,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Option<PathBuf>, RunError> {
    let mut stopped = false;
    let mut told = Ok(());
    let written = parent.write_folder(name, |inside| {
        let exported = export(world, config, inside, |done, total| {
            told = observer.event(RunEvent::Written { done, total });
            if told.is_err() || interrupt.asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        stopped = exported.stopped;
        if stopped {
            return Err(RunError::path(inside, "is incomplete"));
        }
        write_recipes(inside)?;
        let settings = toml::to_string(&world.config())?;
        std::fs::write(inside.join(WORLD), settings).map_err(RunError::io(inside.join(WORLD)))
    });
    told?;
    match written {
        Err(_) if stopped => Ok(None),
        other => other.map(Some),
    }
}

fn write_recipes(world: &Path) -> Result<(), RunError> {
    let folder = world.join("recipes");
    std::fs::create_dir(&folder).map_err(RunError::io(&folder))?;
    RECIPES.iter().try_for_each(|(name, text)| {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(RunError::io(path))
    })
}

/// The world that a base model knows.
///
/// # Errors
/// Returns an error if the folder does not say.
pub(super) fn world_of(base: &Path) -> Result<World, RunError> {
    let file = base.join(WORLD);
    let text = std::fs::read_to_string(&file).map_err(|_| {
        let problem = format!(
            "has no {WORLD}, so it is no base model of a world; train one with `fieldmark base --out runs/base` and give \
             --base runs/base/model"
        );
        RunError::path(base, problem)
    })?;
    let config: WorldConfig = toml::from_str(&text).map_err(|error| RunError::path(&file, error.message()))?;
    Ok(World::new(config)?)
}
