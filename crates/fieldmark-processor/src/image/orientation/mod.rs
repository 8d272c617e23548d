//! Which way up a photograph is, as its file says: EXIF, or XMP where EXIF has no orientation.
//!
//! Reference: `Image.getexif` and `ImageOps.exif_transpose` of Pillow 13. Cameras write EXIF, macOS Preview and exiftool
//! write XMP into a PNG, and ImageMagick writes EXIF as hexadecimal text. What cannot be read says nothing.

mod exif;
mod jpeg;
mod metadata;
mod png;
mod xmp;

pub(super) use self::{jpeg::JpegSegments, metadata::Metadata, png::text_metadata};
