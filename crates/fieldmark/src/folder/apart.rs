//! Keeps what a command reads apart from what it overwrites: the model that a run starts from is not cleared by that run.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use super::run_folder::RunFolder;
use crate::error::RunError;

/// Something that a command reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The recipe key or option that names it.
    pub key: String,
    /// The file or folder.
    pub path: PathBuf,
    /// Whether it is a model, whose folder no other files may be written to.
    pub is_model: bool,
}

impl Source {
    /// A file, or a folder of files, that `key` names.
    pub fn data(key: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { key: key.into(), path: path.into(), is_model: false }
    }

    /// The folder of a model that `key` names.
    pub fn model(key: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { is_model: true, ..Self::data(key, path) }
    }
}

impl RunFolder {
    /// Checks that no source is lost when the files and folders `names` of this folder are replaced. Symbolic links and
    /// `..` are followed.
    ///
    /// # Errors
    /// Returns an error that names the key of the first source that would be lost.
    pub fn keep_apart<'a>(
        &self,
        names: &[&str],
        sources: impl IntoIterator<Item = &'a Source>,
    ) -> Result<(), RunError> {
        let own = real(self.path());
        let replaced: Vec<PathBuf> = names.iter().map(|name| real(&self.file(name))).collect();
        for Source { key, path, is_model } in sources {
            let source = real(path);
            let problem = if let Some(lost) = replaced.iter().find(|replaced| is_inside(&source, replaced)) {
                format!("this command would overwrite {}, which it reads", lost.display())
            } else if *is_model && is_same(&source, &own) {
                "this command would write its own files to the folder of the model".into()
            } else {
                continue;
            };
            let problem = format!("{problem}; choose another folder with {}", self.option());
            return Err(RunError::Setting { key: key.clone(), value: path.display().to_string(), problem });
        }
        Ok(())
    }
}

/// The path without symbolic links, `.` and `..`. The part that does not exist yet is taken as it is written.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let mut found = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = found.pop(),
            Component::CurDir => {}
            other => found.push(other),
        }
        if let Ok(real) = fs::canonicalize(&found) {
            found = real;
        }
    }
    found
}

/// Returns true if `path` is `folder` or inside it.
fn is_inside(path: &Path, folder: &Path) -> bool {
    path.ancestors().any(|ancestor| is_same(ancestor, folder))
}

/// Returns true if both paths are the same file, even if it is mounted at two places.
#[cfg(unix)]
fn is_same(first: &Path, second: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| fs::metadata(path).map(|data| (data.dev(), data.ino())).ok();
    first == second || id(first).is_some_and(|first| id(second) == Some(first))
}

#[cfg(not(unix))]
fn is_same(first: &Path, second: &Path) -> bool {
    first == second
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_not_replaced_however_it_is_spelled() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        fs::create_dir_all(at("run/checkpoint/inner")).unwrap();
        fs::create_dir_all(at("run/other")).unwrap();
        fs::create_dir_all(at("model")).unwrap();
        fs::write(at("run/metrics.jsonl"), "").unwrap();
        let names = ["checkpoint", "checkpoints", "metrics.jsonl"];
        let refused = |output: &str, source: &Source| {
            let folder = RunFolder::at(Some(&at(output))).unwrap();
            folder.keep_apart(&names, [source]).map_err(|error| match error {
                RunError::Setting { key, .. } => key,
                other => panic!("{other}"),
            })
        };
        let model = |path: &str| Source::model("model.path", at(path));
        for (output, path) in [
            ("run", "run/checkpoint"),
            ("run", "run/checkpoint/inner"),
            ("run", "run/../run/./checkpoint"),
            ("run/../run", "run/checkpoint"),
            // Not there yet, or gone.
            ("run", "run/checkpoints/step-000003"),
            // The folder of the model itself.
            ("model", "model"),
            ("run/../model/", "model/."),
        ] {
            assert_eq!(refused(output, &model(path)), Err("model.path".into()), "{output} {path}");
        }
        for (output, path) in [("run", "model"), ("run", "run/other"), ("model/run", "model"), ("run/new", "run")] {
            assert_eq!(refused(output, &model(path)), Ok(()), "{output} {path}");
        }
        let data = |path: &str| Source::data("data.sft.file", at(path));
        assert!(refused("run", &data("run/metrics.jsonl")).is_err());
        assert_eq!(refused("run", &data("run/other/rows.json")), Ok(()));
        assert_eq!(refused("run", &data("run")), Ok(()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            symlink(at("run"), at("link")).unwrap();
            symlink(at("run/checkpoint"), at("newest")).unwrap();
            fs::create_dir(at("linked")).unwrap();
            symlink(at("model"), at("linked/checkpoint")).unwrap();
            for (output, path) in
                [("link", "run/checkpoint"), ("run", "link/checkpoint"), ("run", "newest"), ("linked", "model")]
            {
                assert_eq!(refused(output, &model(path)), Err("model.path".into()), "{output} {path}");
            }
            fs::hard_link(at("run/metrics.jsonl"), at("rows.json")).unwrap();
            assert!(refused("run", &data("rows.json")).is_err());
        }
    }
}
