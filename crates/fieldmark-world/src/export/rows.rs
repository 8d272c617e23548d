//! Data files with one JSON object a line, written as they come.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::error::WorldError;

/// A file of rows.
#[derive(Debug)]
pub(super) struct Rows {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Rows {
    /// Creates the file, and its folder.
    pub(super) fn create(path: PathBuf) -> Result<Self, WorldError> {
        create_parent(&path)?;
        let file = File::create(&path).map_err(WorldError::io(&path))?;
        Ok(Self { path, file: BufWriter::new(file) })
    }

    /// Adds a row.
    pub(super) fn add(&mut self, row: &impl Serialize) -> Result<(), WorldError> {
        let written = serde_json::to_writer(&mut self.file, row).map_err(std::io::Error::from);
        written.and_then(|()| self.file.write_all(b"\n")).map_err(WorldError::io(&self.path))
    }

    /// Writes what is still in memory.
    pub(super) fn finish(mut self) -> Result<(), WorldError> {
        self.file.flush().map_err(WorldError::io(&self.path))
    }
}

pub(super) fn create_parent(path: &Path) -> Result<(), WorldError> {
    match path.parent() {
        Some(parent) => std::fs::create_dir_all(parent).map_err(WorldError::io(parent)),
        None => Ok(()),
    }
}
