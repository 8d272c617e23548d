//! `inputs.json` in the folder of a run: the content of everything that the run reads, so that it is not resumed on other
//! data or from another model. Paths are recorded too, but only to name what changed: a run may move with its data.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    manifest::Fingerprint,
    photographs::{Photographs, changed},
};
use crate::error::RunError;

/// Name of the file in the folder of a training run.
pub const INPUTS: &str = "inputs.json";

/// Names of the files of a model folder that decide what a model computes, besides its weights (`*.safetensors`).
const MODEL_FILES: [&str; 13] = [
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
];

/// What a run reads, by the recipe key that names it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Data files.
    files: BTreeMap<String, InputFile>,
    /// Model folders.
    models: BTreeMap<String, InputModel>,
    /// The photographs of all rows.
    #[serde(default)]
    photographs: Photographs,
    /// Number of questions of an evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    questions: Option<usize>,
}

/// A data file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct InputFile {
    path: PathBuf,
    #[serde(flatten)]
    content: Fingerprint,
}

/// A model folder with the files that decide what the model computes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct InputModel {
    path: PathBuf,
    files: BTreeMap<String, Fingerprint>,
}

/// The content of an `inputs.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Recorded {
    /// With the keys of the recipe.
    ByKey(Inputs),
    /// Of an earlier version: the data files by path, without models and photographs.
    ByPath(BTreeMap<String, Fingerprint>),
}

impl Inputs {
    /// Adds the data file that `key` names. Ignores a path that is neither a file nor missing, such as a pipe.
    ///
    /// # Errors
    /// Returns an error if the file is missing or cannot be read.
    pub fn file(mut self, key: &str, path: &Path) -> Result<Self, RunError> {
        if path.is_file() || !path.exists() {
            let content = Fingerprint::of(path)?;
            self.files.insert(key.into(), InputFile { path: absolute(path), content });
        }
        Ok(self)
    }

    /// Adds the model in the folder that `key` names: its weights, configuration, tokenizer and templates. All of it is
    /// read, which takes 0.7 s for each GB on one core of an AMD EPYC (2026-11-27); several files are read on all cores.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub fn model(mut self, key: &str, folder: &Path) -> Result<Self, RunError> {
        let entries = fs::read_dir(folder).map_err(RunError::io(folder))?;
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(RunError::io(folder))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if (MODEL_FILES.contains(&&*name) || name.ends_with(".safetensors")) && path.is_file() {
                found.push((name, path));
            }
        }
        let contents = Fingerprint::of_all(found.iter().map(|(_, path)| path.as_path()))?;
        let files = found.into_iter().map(|(name, _)| name).zip(contents).collect();
        self.models.insert(key.into(), InputModel { path: absolute(folder), files });
        Ok(self)
    }

    /// Adds the photographs of the rows, in the order in which they are used. All of them are read once.
    ///
    /// # Errors
    /// Returns an error if a photograph cannot be read.
    pub fn photographs<'a>(mut self, files: impl IntoIterator<Item = &'a Path>) -> Result<Self, RunError> {
        self.photographs = Photographs::of(files)?;
        Ok(self)
    }

    /// Adds the number of questions of an evaluation.
    pub(crate) fn questions(self, questions: usize) -> Self {
        Self { questions: Some(questions), ..self }
    }

    /// Returns the number of questions in the list at `path`; `None` if there is no list, or if it does not say.
    pub(crate) fn number_of_questions(path: &Path) -> Option<usize> {
        match Recorded::read(path) {
            Ok(Some(Recorded::ByKey(known))) => known.questions,
            _ => None,
        }
    }

    /// Returns the content of `inputs.json`.
    ///
    /// # Errors
    /// Returns an error if the list cannot be written as JSON, which does not happen in practice.
    pub fn to_json(&self) -> Result<Vec<u8>, RunError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(RunError::LogRow)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Returns true if the list at `path` has content by recipe key, so that paths need not be compared.
    ///
    /// # Errors
    /// Returns an error if the list cannot be read.
    pub(crate) fn are_by_key(path: &Path) -> Result<bool, RunError> {
        Ok(matches!(Recorded::read(path)?, Some(Recorded::ByKey(_))))
    }

    /// Compares data files and models with the list at `path`. If there is no list, nothing is compared.
    ///
    /// # Errors
    /// Returns an error for the first content that differs, or if the list cannot be read.
    pub fn check_files(&self, path: &Path) -> Result<(), RunError> {
        let known = match Recorded::read(path)? {
            None => return Ok(()),
            Some(Recorded::ByKey(known)) => known,
            Some(Recorded::ByPath(known)) => return self.check_paths(&known, path),
        };
        for key in known.files.keys().chain(self.files.keys()) {
            let (then, now) = (known.files.get(key), self.files.get(key));
            if then.map(|file| &file.content) != now.map(|file| &file.content) {
                return Err(differs(path, key, then.map(|file| &*file.path), now.map(|file| &*file.path), None));
            }
        }
        for key in known.models.keys().chain(self.models.keys()) {
            let (then, now) = (known.models.get(key), self.models.get(key));
            if then.map(|model| &model.files) != now.map(|model| &model.files) {
                let changed = then.zip(now).and_then(|(then, now)| first_difference(&then.files, &now.files));
                return Err(differs(path, key, then.map(|m| &*m.path), now.map(|m| &*m.path), changed));
            }
        }
        Ok(())
    }

    /// Compares the photographs with the list at `path`, except those in `exempt`.
    ///
    /// # Errors
    /// Returns an error for the first photograph that differs, or if the list cannot be read.
    pub fn check_photographs(&self, path: &Path, exempt: &[PathBuf]) -> Result<(), RunError> {
        match Recorded::read(path)? {
            Some(Recorded::ByKey(known)) => known.photographs.check(&self.photographs, path, exempt),
            Some(Recorded::ByPath(_)) | None => Ok(()),
        }
    }

    /// Compares the data files with a list by path.
    fn check_paths(&self, known: &BTreeMap<String, Fingerprint>, path: &Path) -> Result<(), RunError> {
        let same = |written: &str, file: &InputFile| absolute(Path::new(written)) == file.path;
        let changed = self
            .files
            .iter()
            .find(|(_, file)| known.iter().any(|(written, content)| same(written, file) && *content != file.content));
        changed.map_or(Ok(()), |(key, file)| Err(differs(path, key, Some(&file.path), Some(&file.path), None)))
    }
}

impl Recorded {
    fn read(path: &Path) -> Result<Option<Self>, RunError> {
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs::read(path).map_err(RunError::io(path))?;
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            RunError::path(path, format!("is damaged ({error}); remove it to resume with the data as they are now"))
        })
    }
}

/// The error for an input of other content: `file` in the folder of a model, or the input as a whole.
fn differs(list: &Path, key: &str, then: Option<&Path>, now: Option<&Path>, file: Option<&str>) -> RunError {
    let shown = |path: Option<&Path>| path.map_or("nothing".into(), |path| path.display().to_string());
    match now {
        Some(now) if then == Some(now) => {
            let at = file.map_or_else(|| now.to_path_buf(), |file| now.join(file));
            changed(&at, list)
        }
        _ => RunError::OtherRecipe {
            folder: list.parent().unwrap_or(Path::new("")).into(),
            file: if list.ends_with(INPUTS) { "recipe.toml" } else { "eval.toml" },
            key: key.into(),
            given: shown(now),
            saved: format!("{} with other content", shown(then)),
        },
    }
}

/// The name of the first file that only one of two folders has, or that differs.
fn first_difference<'a>(
    then: &'a BTreeMap<String, Fingerprint>,
    now: &'a BTreeMap<String, Fingerprint>,
) -> Option<&'a str> {
    let mut names = then.keys().chain(now.keys());
    names.find(|name| then.get(*name) != now.get(*name)).map(String::as_str)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::create_dir(place.at("model")).unwrap();
            for (name, text) in [
                ("rows.json", "rows"),
                ("a.jpg", "a"),
                ("b.jpg", "b"),
                ("model/config.json", "{}"),
                ("model/model.safetensors", "weights"),
                ("model/README.md", "text"),
            ] {
                fs::write(place.at(name), text).unwrap();
            }
            place
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn inputs(&self) -> Inputs {
            let photos = ["a.jpg", "b.jpg", "a.jpg"].map(|name| self.at(name));
            let inputs = Inputs::default().file("data.sft.file", &self.at("rows.json")).unwrap();
            let inputs = inputs.model("model.path", &self.at("model")).unwrap();
            inputs.photographs(photos.iter().map(PathBuf::as_path)).unwrap()
        }

        fn check(&self, list: &Path) -> Result<(), String> {
            let checked = self.inputs().check_files(list).and_then(|()| self.inputs().check_photographs(list, &[]));
            checked.map_err(|error| error.to_string())
        }
    }

    #[test]
    fn content_is_compared_and_not_where_it_lies() {
        let (first, second) = (Place::new(), Place::new());
        let list = first.at("inputs.json");
        fs::write(&list, first.inputs().to_json().unwrap()).unwrap();
        assert!(Inputs::are_by_key(&list).unwrap());
        assert_eq!((first.check(&list), second.check(&list)), (Ok(()), Ok(())));
        // What decides nothing may change.
        fs::write(first.at("model/README.md"), "other").unwrap();
        assert_eq!(first.check(&list), Ok(()));
        for name in ["rows.json", "a.jpg", "b.jpg", "model/config.json", "model/model.safetensors"] {
            let before = fs::read(first.at(name)).unwrap();
            fs::write(first.at(name), "other").unwrap();
            let error = first.check(&list).unwrap_err();
            let named = error.starts_with(&first.at(name).display().to_string());
            assert!(named && error.contains("inputs.json"), "{name}: {error}");
            fs::write(first.at(name), before).unwrap();
            let before = fs::read(second.at(name)).unwrap();
            fs::write(second.at(name), "other").unwrap();
            assert!(second.check(&list).is_err(), "{name}");
            fs::write(second.at(name), before).unwrap();
        }
        fs::write(first.at("model/chat_template.jinja"), "new").unwrap();
        assert!(first.check(&list).unwrap_err().contains("chat_template.jinja"));
        // Another file under a key, or none.
        let without = Inputs::default().model("model.path", &second.at("model")).unwrap();
        let error = without.check_files(&list).unwrap_err();
        assert!(matches!(&error, RunError::OtherRecipe { key, .. } if key == "data.sft.file"), "{error}");
    }

    #[test]
    fn a_list_of_an_earlier_version_has_the_data_files_by_path() {
        let place = Place::new();
        let list = place.at("inputs.json");
        let rows = place.at("rows.json");
        let known = BTreeMap::from([(rows.display().to_string(), Fingerprint::of(&rows).unwrap())]);
        fs::write(&list, serde_json::to_vec(&known).unwrap()).unwrap();
        assert!(!Inputs::are_by_key(&list).unwrap());
        assert_eq!(place.check(&list), Ok(()));
        fs::write(&rows, "other").unwrap();
        assert!(place.check(&list).unwrap_err().contains("rows.json"));
        fs::write(&list, "{").unwrap();
        assert!(place.check(&list).unwrap_err().contains("damaged"));
        fs::remove_file(&list).unwrap();
        assert_eq!(place.check(&list), Ok(()));
    }
}
