//! The orientation in XMP: the attribute `tiff:Orientation="6"` or the element `<tiff:Orientation>6</tiff:Orientation>`.
//!
//! Reference: `Image.getexif` of Pillow 13, which looks for `tiff:Orientation(="|>)([0-9])` and reads no XML.

/// The number of the orientation; `None` if there is none.
pub(super) fn orientation(xmp: &[u8]) -> Option<u8> {
    let name = b"tiff:Orientation".as_slice();
    let mut rest = xmp;
    while let Some(at) = rest.windows(name.len()).position(|window| window == name) {
        rest = &rest[at + name.len()..];
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"));
        if let Some(&[digit @ b'0'..=b'9', ..]) = value {
            return Some(digit - b'0');
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::orientation;

    #[test]
    fn attribute_or_element() {
        for (xmp, expected) in [
            (r#"<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>"#, Some(6)),
            ("<x><tiff:Orientation>3</tiff:Orientation></x>", Some(3)),
            (r#"tiff:Orientation="" tiff:Orientation="8""#, Some(8)),
            (r#"tiff:Orientation="5" tiff:Orientation="8""#, Some(5)),
            (r#"exif:Orientation="6""#, None),
            ("tiff:Orientation", None),
            ("", None),
        ] {
            assert_eq!(orientation(xmp.as_bytes()), expected, "{xmp}");
        }
    }
}
