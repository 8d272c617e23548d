//! EXIF and XMP as they are in a file, and the orientation that they say.

use image::metadata::Orientation;

use super::{exif, xmp};

/// The parts of a file that may hold its orientation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Metadata {
    /// EXIF, with or without `Exif\0\0` before its TIFF header.
    pub(in super::super) exif: Option<Vec<u8>>,
    /// XMP: XML in UTF-8.
    pub(in super::super) xmp: Option<Vec<u8>>,
}

impl Metadata {
    /// The orientation; EXIF is asked first.
    pub(in super::super) fn orientation(&self) -> Orientation {
        let exif = self.exif.as_deref().and_then(exif::orientation);
        let number = exif.or_else(|| self.xmp.as_deref().and_then(xmp::orientation));
        number.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exif_goes_before_xmp_and_xmp_speaks_where_exif_is_silent() {
        let xmp = || Some(br#"<rdf:Description tiff:Orientation="8"/>"#.to_vec());
        let says = |exif: Option<Vec<u8>>| Metadata { exif, xmp: xmp() }.orientation();
        let six = exif::tests::tiff(&[(0x112, 3, 1, [6, 0, 0, 0])]);
        assert_eq!(says(Some(six)), Orientation::Rotate90);
        // An EXIF that is there but has no orientation, and one that is no EXIF at all.
        assert_eq!(says(Some(exif::tests::tiff(&[(0x128, 3, 1, [6, 0, 0, 0])]))), Orientation::Rotate270);
        assert_eq!(says(Some(b"Exif\0\0nonsense".to_vec())), Orientation::Rotate270);
        assert_eq!(says(None), Orientation::Rotate270);
        // Upright, or a number that stands for nothing, is an answer too.
        for number in [1, 0, 9] {
            let upright = exif::tests::tiff(&[(0x112, 3, 1, [number, 0, 0, 0])]);
            assert_eq!(says(Some(upright)), Orientation::NoTransforms);
        }
        assert_eq!(Metadata::default().orientation(), Orientation::NoTransforms);
    }
}
