//! Finds the files of the image paths in a row: in an image folder, or elsewhere for paths with a mapped prefix.
//! Prefixes can be mapped because the official stage-1 and evaluation files name the same data sets by different
//! prefixes.

use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;
use unicode_normalization::UnicodeNormalization;

use crate::error::RowProblem;
use crate::row_image::RowImage;

/// Where the images of a data file are.
///
/// A path is tried in this order: with the longest mapped prefix replaced; inside the folder; unchanged. The last two
/// are LLaMA-Factory's `media_dir` rule. If no file is there, the same path is tried in its other forms: without
/// `file://`, with `\` as `/`, with accents composed or decomposed (Unicode NFC and NFD).
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

    /// The image folder, for messages: `.` if it is the one that the command runs in.
    pub fn folder(&self) -> &Path {
        if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder }
    }

    /// The file of an image, or `None` if it is not found.
    pub fn find(&self, image: &Path) -> Option<PathBuf> {
        self.exact(image).or_else(|| other_forms(image).iter().find_map(|form| self.exact(form)))
    }

    /// An image with its path replaced by that of its file; `None` if the file is not found. Bytes stay as they are.
    pub fn locate(&self, image: &RowImage) -> Option<RowImage> {
        match image {
            RowImage::Path(path) => self.find(path).map(RowImage::Path),
            RowImage::Bytes(_) => Some(image.clone()),
        }
    }

    fn exact(&self, image: &Path) -> Option<PathBuf> {
        let mapped =
            self.prefixes.iter().filter_map(|(prefix, folder)| Some(folder.join(image.strip_prefix(prefix).ok()?)));
        mapped.chain([self.folder.join(image), image.to_path_buf()]).find(|candidate| candidate.is_file())
    }

    /// The problem of a row whose image is not found.
    pub fn not_found(&self, image: &Path) -> RowProblem {
        let name: String = image.display().to_string().chars().take(240).collect();
        RowProblem::ImageNotFound { image: name, likely: self.likely_cause(image) }
    }

    /// Why an image that was not found may be missing: the folder has a file whose name differs in case or in its
    /// ending, or it has the end of the path. `None` if nothing like it is there.
    pub fn likely_cause(&self, image: &Path) -> Option<String> {
        if let Some(similar) = self.similar_file(image) {
            return Some(similar);
        }
        let turned = other_forms(image).pop();
        let image = turned.as_deref().unwrap_or(image);
        let parts: Vec<Component<'_>> = image.components().collect();
        let ends = (1..parts.len()).map(|start| parts[start..].iter().collect::<PathBuf>());
        let end = ends.into_iter().find(|end| self.folder.join(end).is_file())?;
        Some(format!(
            "{} has {}; take the start off the path, or map it with data.prefixes",
            self.folder().display(),
            end.display()
        ))
    }

    /// Says which file in the folder has a path that differs only in case or in its ending; `None` if there is none.
    pub fn similar_file(&self, image: &Path) -> Option<String> {
        let turned = other_forms(image).pop();
        let (found, how) = self.nearly(turned.as_deref().unwrap_or(image))?;
        Some(format!("there is {}, which differs in {how}", found.display()))
    }

    /// A file in the folder whose path differs only in case, Unicode form or ending.
    fn nearly(&self, image: &Path) -> Option<(PathBuf, &'static str)> {
        let mut found = self.folder.clone();
        let mut how = "upper and lower case";
        let mut parts = image.components().peekable();
        while let Some(part) = parts.next() {
            let exact = found.join(part);
            let is_last = parts.peek().is_none();
            if !matches!(part, Component::Normal(_)) || if is_last { exact.is_file() } else { exact.is_dir() } {
                found = exact;
                continue;
            }
            let wanted = part.as_os_str().to_string_lossy();
            let names: Vec<PathBuf> = entries(&found);
            let named = |same: &dyn Fn(&str) -> bool| {
                names.iter().find(|path| path.file_name().is_some_and(|name| same(&name.to_string_lossy()))).cloned()
            };
            found = match named(&|name| folded(name) == folded(&wanted)) {
                Some(entry) => entry,
                None if is_last => {
                    how = "its ending";
                    let stem = |name: &str| folded(name.rsplit_once('.').map_or(name, |(stem, _)| stem));
                    named(&|name| stem(name) == stem(&wanted))?
                }
                None => return None,
            };
        }
        found.is_file().then_some((found, how))
    }
}

/// A path in one way of writing it: without `.`, doubled `/` and blanks at the ends, with `/` for `\`, in NFC. Two rows
/// whose paths are the same here show the same file.
pub(crate) fn same_path(path: &Path) -> PathBuf {
    let Some(text) = path.to_str() else { return path.to_path_buf() };
    let text: String = text.trim().replace('\\', "/").nfc().collect();
    Path::new(&text).components().filter(|part| *part != Component::CurDir).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn folded(name: &str) -> String {
    name.nfc().collect::<String>().to_lowercase()
}

/// The other ways to write a path, without the path itself. The last one has no scheme and no backslash.
fn other_forms(image: &Path) -> Vec<PathBuf> {
    let Some(text) = image.to_str() else { return Vec::new() };
    // A line end or a blank around a path is left from a list of files.
    let mut forms = vec![text.trim().to_owned()];
    if let Some(rest) = text.trim().strip_prefix("file://") {
        let rest = rest.strip_prefix("localhost/").map_or(rest.to_owned(), |rest| format!("/{rest}"));
        forms.extend([percent_decode_str(&rest).decode_utf8_lossy().into_owned(), rest]);
    }
    if text.contains('\\') {
        forms.extend(forms.clone().iter().map(|form| form.replace('\\', "/")));
    }
    if !text.is_ascii() || text.contains('%') {
        let composed = forms.iter().map(|form| form.nfc().collect());
        let decomposed = forms.iter().map(|form| form.nfd().collect());
        forms = decomposed.chain(composed).chain(forms.clone()).collect::<Vec<String>>();
    }
    forms.retain(|form| form != text);
    forms.into_iter().map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"x").unwrap();
        }
        dir
    }

    #[test]
    fn the_longest_prefix_then_the_folder_then_the_path_itself() {
        let dir = folder(&["a/b/1.jpg", "deep/1.jpg", "shallow/b/1.jpg", "a/2.jpg"]);
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

    #[test]
    fn a_path_is_found_in_its_other_forms() {
        let dir = folder(&["a/1.jpg", "my bird.jpg", "e\u{301}/2.jpg", "\u{e9}t\u{e9}.jpg", "100%25.jpg"]);
        let roots = ImageRoots::new(dir.path());
        let absolute = |name: &str| format!("file://{}/{name}", dir.path().display());
        for (written, file) in [
            ("a\\1.jpg".to_owned(), "a/1.jpg"),
            (absolute("a/1.jpg"), "a/1.jpg"),
            (absolute("my%20bird.jpg"), "my bird.jpg"),
            (absolute("100%25.jpg"), "100%25.jpg"),
            ("file://a/1.jpg".into(), "a/1.jpg"),
            ("a/1.jpg\n".into(), "a/1.jpg"),
            (" my bird.jpg \r\n".into(), "my bird.jpg"),
            (format!("{} ", absolute("a/1.jpg")), "a/1.jpg"),
            ("\u{e9}\\2.jpg".into(), "e\u{301}/2.jpg"),
            ("e\u{301}te\u{301}.jpg".into(), "\u{e9}t\u{e9}.jpg"),
        ] {
            assert_eq!(roots.find(Path::new(&written)), Some(dir.path().join(file)), "{written}");
        }
        assert_eq!(roots.find(Path::new("A/1.jpg")), None);
    }

    #[test]
    fn the_likely_cause_names_what_is_there() {
        let dir = folder(&["a/Robin.JPG", "b/wren.png"]);
        let roots = ImageRoots::new(dir.path());
        let cause = |path: &str| roots.likely_cause(Path::new(path));
        for (written, there) in [
            ("A/robin.jpg", "a/Robin.JPG"),
            ("A\\robin.jpg", "a/Robin.JPG"),
            ("b/wren.jpg", "b/wren.png"),
            ("/elsewhere/b/wren.png", "b/wren.png"),
        ] {
            assert!(cause(written).is_some_and(|cause| cause.contains(there)), "{written}: {:?}", cause(written));
        }
        assert_eq!(cause("c/robin.jpg"), None);
    }
}
