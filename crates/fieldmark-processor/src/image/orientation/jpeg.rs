//! The segments of a JPEG file, up to the end of its image: metadata, the number of scans, and where the image ends.
//!
//! Reference: `JpegImagePlugin` of Pillow 13. Metadata stands before the first scan; EXIF that is cut into several
//! segments is joined, and the last XMP packet counts. `jpeg-decoder` keeps only the last segment of EXIF.

use super::metadata::Metadata;

const SOS: u8 = 0xda;
const EOI: u8 = 0xd9;
const APP1: u8 = 0xe1;
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// What the segments of a file say.
#[derive(Debug, Default)]
pub(in super::super) struct JpegSegments {
    /// EXIF and XMP.
    pub(in super::super) metadata: Metadata,
    /// Number of scans.
    pub(in super::super) scans: usize,
    /// Where the mark of the end of the image begins, if a scan and this mark are there.
    pub(in super::super) end: Option<usize>,
}

impl JpegSegments {
    /// Reads the segments. What cannot be read is left out; the decoder refuses it.
    pub(in super::super) fn of(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        let mut rest = bytes;
        // Between a marker and the next one is a segment, the data of a scan, or junk.
        while let Some(at) = rest.iter().position(|&byte| byte == 0xff) {
            rest = &rest[at + 1..];
            match rest.first() {
                None => break,
                Some(&EOI) => {
                    let mark = &bytes[..bytes.len() - rest.len()];
                    // Fill bytes may stand before it.
                    let fill = mark.iter().rev().take_while(|byte| **byte == 0xff).count();
                    found.end = Some(mark.len() - fill).filter(|_| found.scans > 0);
                    break;
                }
                // Fill bytes, and what is no marker: a byte of scan data, a restart, the start of the image.
                Some(0xff) => continue,
                Some(0 | 0x01 | 0xd0..=0xd8) => rest = &rest[1..],
                Some(&marker) => {
                    let length = rest.get(1..3).map_or(0, |two| usize::from(u16::from_be_bytes([two[0], two[1]])));
                    let Some(content) = rest.get(3..1 + length) else { break };
                    rest = &rest[1 + length..];
                    match marker {
                        SOS => found.scans += 1,
                        APP1 if found.scans == 0 => found.metadata.add(content),
                        _ => {}
                    }
                }
            }
        }
        found
    }
}

impl Metadata {
    /// Adds the content of a segment APP1.
    fn add(&mut self, content: &[u8]) {
        if let Some(more) = content.strip_prefix(b"Exif\0\0") {
            self.exif.get_or_insert_default().extend(more);
        } else if let Some(xmp) = content.strip_prefix(XMP) {
            self.xmp = Some(xmp.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        [&[0xff, marker], ((content.len() + 2) as u16).to_be_bytes().as_slice(), content].concat()
    }

    #[test]
    fn metadata_before_the_first_scan_wherever_it_stands() {
        let file = [
            vec![0xff, 0xd8],
            segment(0xe0, b"JFIF\0"),
            segment(APP1, b"Exif\0\0first,"),
            segment(APP1, &[XMP, b"old"].concat()),
            vec![0xff, 0xff],
            segment(APP1, &[XMP, b"new"].concat()),
            segment(APP1, b"Exif\0\0second"),
            segment(SOS, &[1, 2, 3]),
            vec![9, 0xff, 0, 0xff, 0xd3, 0xff, 0xff, 0],
            segment(APP1, b"Exif\0\0late"),
            segment(SOS, &[1, 2, 3]),
            vec![9, 0xff, EOI],
            segment(SOS, &[1, 2, 3]),
        ]
        .concat();
        let found = JpegSegments::of(&file);
        let metadata = Metadata { exif: Some(b"first,second".to_vec()), xmp: Some(b"new".to_vec()) };
        assert_eq!((found.metadata, found.scans), (metadata, 2));
        assert_eq!(file[found.end.unwrap()..][..2], [0xff, EOI]);
        for length in 0..file.len() {
            JpegSegments::of(&file[..length]);
        }
        // A length that is shorter than itself.
        assert_eq!(JpegSegments::of(&[0xff, 0xd8, 0xff, SOS, 0, 1, 0xff, SOS]).scans, 0);
    }
}
