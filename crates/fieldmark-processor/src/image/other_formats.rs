//! Names the format of a file that is no JPEG, PNG or WebP, by its first bytes, so that its owner knows what to convert.

/// Where a sign begins, its bytes, and the format that it shows.
const SIGNS: [(usize, &[u8], &str); 29] = [
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"%PDF", "PDF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"II\xbc\x01", "JPEG XR"),
    // Camera raw files are TIFF files with signs of their own.
    (8, b"CR\x02", "camera raw (CR2)"),
    (0, b"FUJIFILMCCD-RAW", "camera raw (RAF)"),
    (0, b"IIRO", "camera raw (ORF)"),
    (0, b"IIU\0", "camera raw (RW2)"),
    (0, b"II*\0", "TIFF or camera raw"),
    (0, b"MM\0*", "TIFF or camera raw"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"qoif", "QOI"),
    (0, b"DDS ", "DDS"),
    (0, b"%!PS", "PostScript"),
    (0, b"\x1a\x45\xdf\xa3", "Matroska or WebM video"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (128, b"DICM", "DICOM"),
    (0, b"\xabKTX", "KTX"),
    (0, b"farbfeld", "farbfeld"),
];

/// The brands of files in ISO's container, which HEIC, AVIF and videos share.
const BRANDS: [(&[u8], &str); 12] = [
    (b"avif", "AVIF"),
    (b"avis", "AVIF"),
    (b"heic", "HEIC"),
    (b"heix", "HEIC"),
    (b"heim", "HEIC"),
    (b"heis", "HEIC"),
    (b"hevc", "HEIC"),
    (b"hevx", "HEIC"),
    (b"mif1", "HEIF"),
    (b"msf1", "HEIF"),
    (b"crx ", "camera raw (CR3)"),
    (b"qt  ", "QuickTime video"),
];

/// How far into a text its first element may begin.
const START: usize = 4096;

/// Returns the name of the format, if it is known.
pub(super) fn name_of(bytes: &[u8]) -> Option<&'static str> {
    if bytes.get(4..8) == Some(b"ftyp") {
        return Some(of_brands(bytes));
    }
    let sign = SIGNS.iter().find(|(at, sign, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(sign)));
    sign.map(|(.., name)| *name).or_else(|| is_svg(bytes).then_some("SVG"))
}

/// The format by the first brand that tells one. `mif1` says only HEIF, and the brands behind it may say more.
fn of_brands(bytes: &[u8]) -> &'static str {
    let length = bytes.get(..4).map_or(0, |four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]) as usize);
    let major = bytes.get(8..12).into_iter();
    let others = bytes.get(16..length.min(bytes.len())).unwrap_or_default().chunks_exact(4);
    let names: Vec<&'static str> = major
        .chain(others)
        .filter_map(|brand| BRANDS.iter().find(|(known, _)| *known == brand).map(|(_, name)| *name))
        .collect();
    names.iter().find(|name| **name != "HEIF").or(names.first()).copied().unwrap_or("video (MP4)")
}

fn is_svg(bytes: &[u8]) -> bool {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let start = &text[..text.len().min(START)];
    start.starts_with(b"<") && start.windows(4).any(|four| four == b"<svg")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ftyp(brands: &[&[u8]]) -> Vec<u8> {
        let length = 16 + 4 * (brands.len() - 1);
        [&(length as u32).to_be_bytes(), b"ftyp", brands[0], b"\0\0\0\0", &brands[1..].concat()].concat()
    }

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        for (bytes, name) in [
            (ftyp(&[b"heic", b"mif1", b"heic"]), "HEIC"),
            (ftyp(&[b"mif1", b"mif1", b"heic"]), "HEIC"),
            (ftyp(&[b"mif1", b"mif1", b"avif"]), "AVIF"),
            (ftyp(&[b"mif1"]), "HEIF"),
            (ftyp(&[b"avif", b"mif1", b"miaf"]), "AVIF"),
            (ftyp(&[b"isom", b"mp42"]), "video (MP4)"),
            (b"\0\0\0\x0cJXL \r\n\x87\n\0\0".to_vec(), "JPEG XL"),
            (b"\xff\x0a\xfa\x7f".to_vec(), "JPEG XL"),
            (b"%PDF-1.7\n".to_vec(), "PDF"),
            (b"<svg xmlns=\"x\"/>".to_vec(), "SVG"),
            (b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- x -->\n<svg/>".to_vec(), "SVG"),
            (b"II*\0\x10\0\0\0CR\x02\0".to_vec(), "camera raw (CR2)"),
            (b"MM\0*\0\0\0\x08".to_vec(), "TIFF or camera raw"),
            (b"GIF89a".to_vec(), "GIF"),
        ] {
            assert_eq!(name_of(&bytes), Some(name));
        }
        for bytes in [&b""[..], b"hello <svg>", b"<html></html>", b"\0\0\0\x08ftyp", b"\0\0\0"] {
            let name = name_of(bytes);
            assert!(name.is_none() || bytes.ends_with(b"ftyp"), "{bytes:?}: {name:?}");
        }
    }
}
