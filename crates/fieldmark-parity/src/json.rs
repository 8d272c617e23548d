//! Reads the JSON files of a reference folder.

use std::path::Path;

use serde::de::DeserializeOwned;

use super::error::ParityError;

/// Reads the JSON file `name` of a folder.
pub(super) fn json<T: DeserializeOwned>(folder: &Path, name: &str) -> Result<T, ParityError> {
    let path = folder.join(name);
    let text =
        std::fs::read_to_string(&path).map_err(|error| ParityError::Folder(format!("{}: {error}", path.display())))?;
    serde_json::from_str(&text).map_err(|error| ParityError::Folder(format!("{}: {error}", path.display())))
}
