//! The orientation in EXIF: tag 0x0112 of the first directory of a TIFF structure.
//!
//! Reference: `ImageFileDirectory_v2.load` of Pillow 13, which takes any type of whole number, the first value of
//! several, and what stands before a damaged entry. `Orientation::from_exif_chunk` of the `image` crate takes one short.

/// Tag of the orientation.
const ORIENTATION: u16 = 0x112;

/// The number of the orientation. `None`: there is no such tag. 0: the tag has a value that is no orientation.
pub(super) fn orientation(exif: &[u8]) -> Option<u8> {
    let mut bytes = exif;
    while let Some(rest) = bytes.strip_prefix(b"Exif\0\0") {
        bytes = rest;
    }
    let big = match bytes.get(..4)? {
        b"II\x2a\0" | b"II\0\x2a" => false,
        b"MM\0\x2a" | b"MM\x2a\0" => true,
        _ => return None,
    };
    let tiff = Tiff { bytes, big };
    let directory = tiff.number(4, 4)? as usize;
    let entries = tiff.number(directory, 2)? as usize;
    (0..entries).map_while(|entry| tiff.entry(directory + 2 + 12 * entry)).flatten().next()
}

struct Tiff<'a> {
    bytes: &'a [u8],
    big: bool,
}

impl Tiff<'_> {
    /// An unsigned number of 1, 2 or 4 bytes.
    fn number(&self, at: usize, size: usize) -> Option<u32> {
        let bytes = self.bytes.get(at..at.checked_add(size)?)?.iter().copied();
        let join = |number: u32, byte: u8| number << 8 | u32::from(byte);
        Some(if self.big { bytes.fold(0, join) } else { bytes.rev().fold(0, join) })
    }

    /// The orientation in the entry at `at`. The outer `None` is the end of the file, the inner one another tag or an
    /// entry that cannot be read.
    fn entry(&self, at: usize) -> Option<Option<u8>> {
        let (tag, kind) = (self.number(at, 2)?, self.number(at + 2, 2)?);
        let (count, inline) = (self.number(at + 4, 4)?, self.number(at + 8, 4)?);
        if tag != u32::from(ORIENTATION) || count == 0 {
            return Some(None);
        }
        // Signed and unsigned numbers of one size are alike here: no orientation is negative.
        let (size, whole) = match kind {
            1 | 2 | 7 => (1, false),
            6 => (1, true),
            3 | 8 => (2, true),
            4 | 9 | 13 => (4, true),
            11 => (4, false),
            5 | 10 | 12 => (8, false),
            _ => return Some(None),
        };
        let start = if count as usize > 4 / size { inline as usize } else { at + 8 };
        let end = start.saturating_add((count as usize).saturating_mul(size));
        if end > self.bytes.len() {
            return Some(None);
        }
        let number = if whole { self.number(start, size) } else { None };
        Some(Some(number.and_then(|number| u8::try_from(number).ok()).unwrap_or(0)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::orientation;

    type Entry = (u16, u16, u32, [u8; 4]);

    /// A little-endian TIFF structure with one directory.
    pub(in super::super) fn tiff(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = b"II\x2a\0\x08\0\0\0".to_vec();
        bytes.extend((entries.len() as u16).to_le_bytes());
        for (tag, kind, count, value) in entries {
            bytes.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
            bytes.extend(count.to_le_bytes());
            bytes.extend(value);
        }
        bytes.extend([0; 4]);
        bytes
    }

    #[test]
    fn what_pillow_reads_is_read() {
        let one = |kind, count, value| orientation(&tiff(&[(0x112, kind, count, value)]));
        // Values from Pillow 13. Shorts, longs, signed numbers, and the first of two.
        for kind in [3, 4, 6, 8, 9, 13] {
            assert_eq!(one(kind, 1, [6, 0, 0, 0]), Some(6), "type {kind}");
        }
        assert_eq!(one(3, 2, [6, 0, 3, 0]), Some(6));
        // Bytes, text and undefined are not numbers to Pillow; 262 is not 6; types that TIFF does not have do not count.
        for kind in [1, 2, 7] {
            assert_eq!(one(kind, 1, [6, 0, 0, 0]), Some(0), "type {kind}");
        }
        assert_eq!(one(3, 1, [6, 1, 0, 0]), Some(0));
        assert_eq!([one(3, 0, [6, 0, 0, 0]), one(99, 1, [6, 0, 0, 0])], [None, None]);
        // Three shorts do not fit into the entry; it says where they are.
        let mut far = tiff(&[(0x112, 3, 3, [26, 0, 0, 0])]);
        assert_eq!(orientation(&far), None);
        far.extend([6, 0, 3, 0, 1, 0]);
        assert_eq!(orientation(&far), Some(6));
    }

    #[test]
    fn headers_of_both_orders_prefixes_and_damage() {
        let six = tiff(&[(0x112, 3, 1, [6, 0, 0, 0])]);
        assert_eq!(orientation(&[b"Exif\0\0Exif\0\0".as_slice(), &six].concat()), Some(6));
        let big = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        assert_eq!(orientation(big), Some(6));
        let header = |magic: &[u8; 4]| orientation(&[magic.as_slice(), &six[4..]].concat());
        assert_eq!([header(b"II\0\x2a"), header(b"II\x2b\0"), header(b"XX\x2a\0")], [Some(6), None, None]);
        // A text whose place is outside the file, and a count of entries that is too high.
        let mut damaged = tiff(&[(0x10f, 2, 50, [0xff; 4]), (0x112, 3, 1, [6, 0, 0, 0])]);
        damaged[8] = 9;
        assert_eq!(orientation(&damaged), Some(6));
        for length in 0..six.len() - 4 {
            assert_eq!(orientation(&six[..length]), None, "{length}");
        }
        assert_eq!(orientation(&[b"II\x2a\0".as_slice(), &[0xff; 4]].concat()), None);
    }
}
