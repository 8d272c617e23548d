//! The keys of a recipe that are paths.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::document::Recipe;

/// The keys that are paths of what a run reads. Two runs are the same if the content is, wherever it lies.
pub(crate) const READ: [&str; 12] = [
    "model.path",
    "model.adapter",
    "model.text_encoder",
    "data.images",
    "data.prefixes",
    "data.labels",
    "data.aliases",
    "data.sft.file",
    "data.sft.validation",
    "data.tapo.file",
    "data.tapo.validation",
    "eval.files",
];

impl Recipe {
    /// The recipe with absolute paths, so that it can be used from any folder. The path of a file that does not exist
    /// stays as it is: it may be a name that nothing reads.
    pub fn with_absolute_paths(mut self) -> Self {
        if let Some(output) = self.output.as_mut().filter(|path| !path.as_os_str().is_empty()) {
            *output = absolute(output);
        }
        for path in self.read_paths() {
            if !path.as_os_str().is_empty() && path.exists() {
                *path = absolute(path);
            }
        }
        self
    }

    /// All paths of [`READ`].
    fn read_paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let Self { model, data, eval, .. } = self;
        let single = [
            &mut model.path,
            &mut model.adapter,
            &mut model.text_encoder,
            &mut data.images,
            &mut data.labels,
            &mut data.aliases,
            &mut data.sft.file,
            &mut data.sft.validation,
            &mut data.tapo.file,
            &mut data.tapo.validation,
        ];
        single.into_iter().flatten().chain(data.prefixes.values_mut()).chain(&mut eval.files)
    }
}

/// Adapts the recipe that a run wrote to its own folder, if that folder has moved: a path that is no longer there is
/// looked for where it is if the whole project moved along. Other recipes stay as they are.
pub(super) fn follow(table: &mut Table, file: &Path) {
    let Some(now) = file.parent().map(absolute) else { return };
    let is_own = ["inputs.json", "eval-inputs.json"].iter().any(|list| now.join(list).is_file());
    let before = table.get("output").and_then(Value::as_str).map(PathBuf::from);
    let Some(before) = before.filter(|before| is_own && before.is_absolute() && !before.exists()) else { return };
    for key in READ {
        for text in texts(table, key) {
            let path = Path::new(text.as_str());
            if path.is_absolute()
                && !path.exists()
                && let Some(found) = beside(path, &before, &now).filter(|found| found.exists())
            {
                *text = found.to_string_lossy().into_owned();
            }
        }
    }
    table.insert("output".into(), Value::String(now.to_string_lossy().into_owned()));
}

/// The paths that a key of a table holds: one, a list, or the values of a table.
pub(super) fn texts<'a>(table: &'a mut Table, key: &str) -> Vec<&'a mut String> {
    let mut names = key.split('.');
    let first = names.next().and_then(|name| table.get_mut(name));
    match names.fold(first, |value, name| value.and_then(|value| value.get_mut(name))) {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(values)) => values.iter_mut().filter_map(text_of).collect(),
        Some(Value::Table(values)) => values.iter_mut().filter_map(|(_, value)| text_of(value)).collect(),
        _ => Vec::new(),
    }
}

fn text_of(value: &mut Value) -> Option<&mut String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// The path that lies to `now` as `path` lies to `before`.
fn beside(path: &Path, before: &Path, now: &Path) -> Option<PathBuf> {
    let shared = before.ancestors().find(|ancestor| path.starts_with(ancestor))?;
    let up = before.strip_prefix(shared).ok()?.components().count();
    Some(now.ancestors().nth(up)?.join(path.strip_prefix(shared).ok()?))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_that_exists_becomes_absolute() {
        // Tests run in the folder of the package.
        let here = |name: &str| std::env::current_dir().unwrap().join(name);
        let sets = ["model.path=src", "data.images=", "data.labels=absent", "data.sft.file=src/lib.rs", "output=new"];
        let mut recipe = Recipe::read(&[], &sets.map(str::to_owned)).unwrap();
        recipe.eval.files = vec!["src".into(), "/".into()];
        recipe.data.prefixes.insert("a".into(), "src".into());
        let made = recipe.with_absolute_paths();
        assert_eq!((made.model.path, made.data.images), (Some(here("src")), Some("".into())));
        assert_eq!((made.data.labels, made.data.sft.file), (Some("absent".into()), Some(here("src/lib.rs"))));
        assert_eq!((made.output, &made.data.prefixes["a"]), (Some(here("new")), &here("src")));
        assert_eq!(made.eval.files, [here("src"), "/".into()]);
    }

    #[test]
    fn the_recipe_of_a_run_follows_its_folder() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name).display().to_string();
        for folder in ["new/run", "new/photos", "other"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("new/rows.json"), "").unwrap();
        let text = format!(
            "output = {:?}\n[data]\nimages = {:?}\nlabels = {:?}\nprefixes = {{ a = {:?} }}\n[data.sft]\nfile = {:?}\n\
             [eval]\nfiles = [{:?}, \"relative\"]\n",
            at("old/run"),
            at("old/photos"),
            at("other"),
            at("old/gone"),
            at("old/rows.json"),
            at("old/rows.json"),
        );
        let read = |file: &str| {
            std::fs::write(at(file), &text).unwrap();
            Recipe::read(&[at(file).into()], &[]).unwrap()
        };
        // Only a recipe beside the list of its inputs is that of a run.
        assert_eq!(read("new/run/recipe.toml").output, Some(at("old/run").into()));
        std::fs::write(at("new/run/inputs.json"), "{}").unwrap();
        let moved = read("new/run/recipe.toml");
        assert_eq!(moved.output, Some(at("new/run").into()));
        assert_eq!((moved.data.images, moved.data.labels), (Some(at("new/photos").into()), Some(at("other").into())));
        assert_eq!(
            (&moved.data.prefixes["a"], moved.data.sft.file),
            (&at("old/gone").into(), Some(at("new/rows.json").into()))
        );
        assert_eq!(moved.eval.files, [PathBuf::from(at("new/rows.json")), "relative".into()]);
        // As long as the folder is where it was, nothing is looked for elsewhere.
        std::fs::create_dir_all(at("old/run")).unwrap();
        assert_eq!(read("new/run/recipe.toml").data.images, Some(at("old/photos").into()));
    }
}
