//! From the image paths of a row to files: an image folder, and prefixes that lie elsewhere.
//! The official stage-1 and evaluation files name the same data sets by different prefixes, so a prefix can be mapped.

use std::path::{Path, PathBuf};

/// Where the images of a data file lie.
///
/// A path is looked for, in this order: with the longest mapped prefix replaced; under the folder; as it is
/// (LLaMA-Factory's `media_dir` rule: a path that is not a file there is used as it is).
#[derive(Clone, Debug, Default)]
pub struct ImageRoots {
    folder: PathBuf,
    prefixes: Vec<(PathBuf, PathBuf)>,
}

impl ImageRoots {
    /// Images under `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), prefixes: Vec::new() }
    }

    /// Images in the folder of the data file itself, as is the default of LLaMA-Factory.
    pub fn beside(file: &Path) -> Self {
        Self::new(file.parent().unwrap_or(Path::new("")))
    }

    /// Lets paths that begin with the folders `prefix` lie under `folder` instead.
    pub fn with_prefix(mut self, prefix: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        self.prefixes.push((prefix.into(), folder.into()));
        self.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.components().count()));
        self
    }

    /// The folder that paths are looked for in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of an image, or `None` where there is none.
    pub fn find(&self, image: &Path) -> Option<PathBuf> {
        let mapped =
            self.prefixes.iter().filter_map(|(prefix, folder)| Some(folder.join(image.strip_prefix(prefix).ok()?)));
        mapped.chain([self.folder.join(image), image.to_path_buf()]).find(|candidate| candidate.is_file())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_then_the_folder_then_the_path_itself() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/b/1.jpg", "deep/1.jpg", "shallow/b/1.jpg", "a/2.jpg"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        let roots = ImageRoots::new(dir.path())
            .with_prefix("a", dir.path().join("shallow"))
            .with_prefix("a/b", dir.path().join("deep"));
        let find = |path: &str| roots.find(Path::new(path));
        assert_eq!(find("a/b/1.jpg"), Some(dir.path().join("deep/1.jpg")));
        assert_eq!(find("a/2.jpg"), Some(dir.path().join("a/2.jpg")));
        let absolute = dir.path().join("deep/1.jpg");
        assert_eq!(ImageRoots::new("nowhere").find(&absolute), Some(absolute));
        assert_eq!(find("ab/1.jpg"), None);
    }
}
