//! Finds the files of the image paths in a row: in an image folder, or elsewhere for paths with a mapped prefix.
//! Prefixes can be mapped because the official stage-1 and evaluation files name the same data sets by different
//! prefixes.

use std::path::{Path, PathBuf};

/// Where the images of a data file are.
///
/// A path is tried in this order: with the longest mapped prefix replaced; inside the folder; unchanged. The last two
/// are LLaMA-Factory's `media_dir` rule.
#[derive(Clone, Debug, Default)]
pub struct ImageRoots {
    folder: PathBuf,
    prefixes: Vec<(PathBuf, PathBuf)>,
}

impl ImageRoots {
    /// Looks for images in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), prefixes: Vec::new() }
    }

    /// Looks for images in the folder of the data file, which is LLaMA-Factory's default.
    pub fn beside(file: &Path) -> Self {
        Self::new(file.parent().unwrap_or(Path::new("")))
    }

    /// Looks for paths that begin with the folders `prefix` in `folder` instead.
    pub fn with_prefix(mut self, prefix: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Self {
        self.prefixes.push((prefix.into(), folder.into()));
        self.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.components().count()));
        self
    }

    /// The image folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of an image, or `None` if it is not found.
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
