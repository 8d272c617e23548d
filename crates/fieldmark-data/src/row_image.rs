//! An image of a row: the path of a file, or the bytes of an image file that the row itself contains.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An image in a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowImage {
    /// The path of an image file. [`crate::ImageRoots`] finds the file.
    Path(PathBuf),
    /// The content of an image file.
    Bytes(ImageBytes),
}

/// The content of an image file that a row contains. Clones share the bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageBytes {
    /// What messages call it: the path beside the bytes, or the column that contains them.
    pub name: String,
    /// The file's content: JPEG, PNG or WebP, not decoded.
    pub bytes: Arc<[u8]>,
}

impl fmt::Debug for ImageBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageBytes({:?}, {} bytes)", self.name, self.bytes.len())
    }
}

impl From<&str> for RowImage {
    fn from(path: &str) -> Self {
        Self::Path(path.into())
    }
}

impl RowImage {
    /// What messages call the image: its path, or where its bytes are.
    pub fn name(&self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Bytes(image) => image.name.clone(),
        }
    }

    /// The path, if the image is a file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Bytes(_) => None,
        }
    }

    /// Returns true if two images have the same content, byte for byte. Paths must be those of files.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read.
    pub fn same_content(&self, other: &Self) -> io::Result<bool> {
        if self == other {
            return Ok(true);
        }
        if self.size()? != other.size()? {
            return Ok(false);
        }
        let (mut one, mut two) = (self.open()?, other.open()?);
        let (mut here, mut there) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        loop {
            let read = fill(&mut one, &mut here)?;
            if read != fill(&mut two, &mut there)? || here[..read] != there[..read] {
                return Ok(false);
            }
            if read == 0 {
                return Ok(true);
            }
        }
    }

    /// The number of bytes of the image file.
    pub(crate) fn size(&self) -> io::Result<u64> {
        match self {
            Self::Path(path) => fs::metadata(path).map(|data| data.len()),
            Self::Bytes(image) => Ok(image.bytes.len() as u64),
        }
    }

    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Path(path) => Box::new(File::open(path)?),
            Self::Bytes(image) => Box::new(&image.bytes[..]),
        })
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(from: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_compared_and_not_names() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            RowImage::Path(path)
        };
        let long = vec![7u8; 100_000];
        let mut other = long.clone();
        other[99_999] = 8;
        let (a, b, c, d) = (file("a", &long), file("b", &long), file("c", &other), file("d", &long[1..]));
        let inside = RowImage::Bytes(ImageBytes { name: "x".into(), bytes: long.into() });
        assert!(a.same_content(&a).unwrap() && a.same_content(&b).unwrap() && a.same_content(&inside).unwrap());
        assert!(!a.same_content(&c).unwrap() && !inside.same_content(&c).unwrap() && !a.same_content(&d).unwrap());
        assert!(a.same_content(&RowImage::Path(dir.path().join("gone"))).is_err());
    }
}
