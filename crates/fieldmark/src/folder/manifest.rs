//! `trainer/manifest.json`: the files of a checkpoint with size and SHA-256. It is written last and shows whether a
//! checkpoint is complete and undamaged.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use fieldmark_model::files::write_whole;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::RunError;

const NAME: &str = "trainer/manifest.json";

/// The files of a checkpoint folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// By path relative to the folder, with `/` as separator.
    files: BTreeMap<String, Fingerprint>,
}

/// Size in bytes and SHA-256 of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    size: u64,
    sha256: String,
}

impl Fingerprint {
    /// Computes the fingerprint of the file at `path`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read.
    pub fn of(path: &Path) -> Result<Self, RunError> {
        fingerprint(path).map_err(at(path))
    }

    /// Computes the fingerprints of several files on all cores.
    ///
    /// # Errors
    /// Returns an error for the first file that cannot be read.
    pub fn of_all<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<Vec<Self>, RunError> {
        let paths: Vec<&Path> = paths.into_iter().collect();
        let workers = thread::available_parallelism().map_or(1, usize::from).min(paths.len());
        if workers <= 1 {
            return paths.into_iter().map(Self::of).collect();
        }
        let next = AtomicUsize::new(0);
        let mut found: Vec<(usize, Result<Self, RunError>)> = thread::scope(|scope| {
            let work = || {
                let places = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
                let paths = places.map_while(|place| Some((place, *paths.get(place)?)));
                paths.map(|(place, path)| (place, Self::of(path))).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        found.sort_by_key(|(place, _)| *place);
        found.into_iter().map(|(_, content)| content).collect()
    }

    /// The SHA-256 in hexadecimal digits.
    pub(super) fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl Manifest {
    /// Lists the files of `folder` and writes the list to it.
    pub(crate) fn write(folder: &Path) -> Result<(), RunError> {
        let mut manifest = Self::default();
        manifest.add(folder, "")?;
        let path = folder.join(NAME);
        let text = serde_json::to_string_pretty(&manifest).map_err(RunError::LogRow)?;
        fs::create_dir_all(folder.join("trainer")).map_err(at(&path))?;
        write_whole(&path, format!("{text}\n").as_bytes()).map_err(at(&path))
    }

    fn add(&mut self, folder: &Path, prefix: &str) -> Result<(), RunError> {
        for entry in fs::read_dir(folder).map_err(at(folder))? {
            let entry = entry.map_err(at(folder))?;
            let (path, name) = (entry.path(), format!("{prefix}{}", entry.file_name().to_string_lossy()));
            if path.is_dir() {
                self.add(&path, &format!("{name}/"))?;
            } else if name != NAME {
                self.files.insert(name, Fingerprint::of(&path)?);
            }
        }
        Ok(())
    }

    /// Reads the whole checkpoint and compares its files with the list.
    ///
    /// # Errors
    /// Returns [`RunError::Damaged`] for the first file that is missing or changed.
    pub(crate) fn verify(folder: &Path) -> Result<(), RunError> {
        let damaged = |reason: String| RunError::Damaged { path: folder.into(), reason };
        let text = match fs::read(folder.join(NAME)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged(format!("{NAME} is missing"))),
            Err(error) => return Err(damaged(format!("{NAME}: {error}"))),
        };
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| damaged(format!("{NAME}: {error}")))?;
        // The quick checks come first: a missing file is found before a long file is read.
        for (name, listed) in &manifest.files {
            let size = fs::metadata(folder.join(name)).map(|data| data.len());
            match size {
                Ok(size) if size == listed.size => {}
                Ok(size) => return Err(damaged(format!("{name} has {size} bytes instead of {}", listed.size))),
                Err(error) if error.kind() == ErrorKind::NotFound => return Err(damaged(format!("{name} is missing"))),
                Err(error) => return Err(damaged(format!("{name}: {error}"))),
            }
        }
        for (name, listed) in &manifest.files {
            let found = fingerprint(&folder.join(name)).map_err(|error| damaged(format!("{name}: {error}")))?;
            if found != *listed {
                return Err(damaged(format!("{name} changed after it was saved: its SHA-256 differs")));
            }
        }
        Ok(())
    }
}

/// Computes one SHA-256 over the weight files of a checkpoint folder (`*.safetensors`, in the order of their names).
///
/// # Errors
/// Returns an error if a file cannot be read.
pub fn weights_fingerprint(folder: &Path) -> Result<String, RunError> {
    let entries = fs::read_dir(folder).map_err(at(folder))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>().map_err(at(folder))?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    let mut hash = Sha256::new();
    for path in files {
        hash.update(Fingerprint::of(&path)?.sha256);
    }
    Ok(hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fingerprint(path: &Path) -> std::io::Result<Fingerprint> {
    let (mut file, mut hash, mut size) = (File::open(path)?, Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => {
                hash.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
    Ok(Fingerprint { size, sha256: hex(&hash.finalize()) })
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> RunError {
    let path: PathBuf = path.into();
    move |source| RunError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("trainer")).unwrap();
        for (name, content) in [("model.safetensors", "abc"), ("config.json", "{}"), ("trainer/state.toml", "")] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        Manifest::write(folder.path()).unwrap();
        folder
    }

    #[test]
    fn the_list_has_sizes_and_known_hashes() {
        let folder = checkpoint();
        Manifest::verify(folder.path()).unwrap();
        let text = fs::read_to_string(folder.path().join(NAME)).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let files = value["files"].as_object().unwrap();
        assert_eq!(files.len(), 3);
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(files["model.safetensors"]["sha256"], abc);
        assert_eq!(
            (files["model.safetensors"]["size"].as_u64(), files["config.json"]["size"].as_u64()),
            (Some(3), Some(2))
        );
    }

    #[test]
    fn every_damage_is_named() {
        let says = |damage: &dyn Fn(&Path), expected: &[&str]| {
            let folder = checkpoint();
            damage(folder.path());
            let error = Manifest::verify(folder.path()).unwrap_err();
            let RunError::Damaged { path, reason } = &error else { panic!("{error}") };
            assert!(path == folder.path() && expected.iter().all(|part| reason.contains(part)), "{error}");
        };
        says(&|at| fs::remove_file(at.join("config.json")).unwrap(), &["config.json"]);
        says(&|at| fs::write(at.join("model.safetensors"), "ab").unwrap(), &["model.safetensors", "2", "3"]);
        says(&|at| fs::write(at.join("model.safetensors"), "abd").unwrap(), &["model.safetensors", "SHA-256"]);
        says(&|at| fs::remove_file(at.join(NAME)).unwrap(), &["trainer/manifest.json"]);
        says(&|at| fs::write(at.join(NAME), "{").unwrap(), &["trainer/manifest.json"]);
    }
}
