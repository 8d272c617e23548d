//! EXIF and XMP in the chunks of a PNG file.
//!
//! Reference: `PngImagePlugin` of Pillow 13 (`chunk_eXIf`, `chunk_tEXt`, `chunk_zTXt`, `chunk_iTXt`). Chunks count before
//! and after the pixels, and the last one of a name wins. A damaged text is empty, one that is cut short is read as far.

use std::io::{ErrorKind, Read};

use flate2::read::ZlibDecoder;

use super::metadata::Metadata;

/// EXIF as hexadecimal text, as ImageMagick writes it.
const RAW_EXIF: &[u8] = b"Raw profile type exif";
const XMP: &[u8] = b"XML:com.adobe.xmp";
/// Bytes that a compressed text may have once it is inflated.
const MAX_TEXT: u64 = 16 << 20;

/// Reads the metadata of a PNG file.
///
/// # Errors
/// Returns a reason if the file ends inside a chunk, or if one of these texts inflates to more than 16 MiB.
pub(in super::super) fn text_metadata(bytes: &[u8]) -> Result<Metadata, String> {
    let (mut exif, mut raw_exif, mut xmp) = (None, None, None);
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((&[a, b, c, d, ref kind @ ..], after)) = rest.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if kind == b"IEND" {
            break;
        }
        let Some(content) = after.get(..length) else {
            return Err(format!("it ends inside the chunk {}", kind.escape_ascii()));
        };
        // After the content come four bytes of checksum, which the decoder checks.
        rest = after.get(length + 4..).unwrap_or_default();
        let text = match kind {
            b"eXIf" => {
                exif = Some(content.to_vec());
                continue;
            }
            b"tEXt" | b"zTXt" | b"iTXt" => Text::of(kind, content),
            _ => continue,
        };
        let Some(text) = text else { continue };
        match text.keyword {
            b"exif" if kind == b"tEXt" => exif = Some(text.value()?),
            RAW_EXIF => raw_exif = Some(text.value()?),
            XMP => xmp = Some(text.value()?),
            _ => {}
        }
    }
    let exif = exif.or_else(|| raw_exif.and_then(|text| from_hex(&text)));
    Ok(Metadata { exif, xmp })
}

struct Text<'a> {
    keyword: &'a [u8],
    compressed: bool,
    content: &'a [u8],
}

impl<'a> Text<'a> {
    /// The parts of a text chunk; `None` if it is not made of them.
    fn of(kind: &[u8], chunk: &'a [u8]) -> Option<Self> {
        let (keyword, rest) = split(chunk)?;
        match kind {
            b"tEXt" => Some(Self { keyword, compressed: false, content: rest }),
            b"zTXt" => Some(Self { keyword, compressed: true, content: rest.strip_prefix(&[0])? }),
            _ => {
                let (&[flag, method], rest) = rest.split_first_chunk()?;
                let (_language, rest) = split(rest)?;
                let (_translated, content) = split(rest)?;
                (flag == 0 || method == 0).then_some(Self { keyword, compressed: flag != 0, content })
            }
        }
    }

    fn value(&self) -> Result<Vec<u8>, String> {
        if !self.compressed {
            return Ok(self.content.to_vec());
        }
        let mut text = Vec::new();
        match ZlibDecoder::new(self.content).take(MAX_TEXT + 1).read_to_end(&mut text) {
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => Ok(Vec::new()),
            _ if text.len() as u64 <= MAX_TEXT => Ok(text),
            _ => {
                let keyword = self.keyword.escape_ascii();
                Err(format!("its text `{keyword}` inflates to more than {} MiB", MAX_TEXT >> 20))
            }
        }
    }
}

/// What stands before the first zero byte, and behind it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// The bytes of a raw profile: an empty line, the name and the length, then hexadecimal lines.
fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |&byte: &u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let lines = text.splitn(4, |&byte| byte == b'\n').nth(3)?;
    let digits = lines.iter().filter(|byte| !byte.is_ascii_whitespace()).map(digit).collect::<Option<Vec<u8>>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};

    use super::*;

    fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32).to_be_bytes(), kind.as_slice(), content, &[0; 4]].concat()
    }

    fn deflated(content: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn of(chunks: &[Vec<u8>]) -> Result<Metadata, String> {
        text_metadata(&[vec![0; 8], chunks.concat()].concat())
    }

    #[test]
    fn every_chunk_that_holds_metadata_is_read() {
        let hex = b"\nexif\n      12\n4578\n 69660000\n0102AF".as_slice();
        let exif = b"Exif\0\0\x01\x02\xaf".to_vec();
        let plain = |keyword: &[u8], text: &[u8]| chunk(b"tEXt", &[keyword, &[0], text].concat());
        let packed = |keyword: &[u8], text: &[u8]| chunk(b"zTXt", &[keyword, &[0, 0], &deflated(text)].concat());
        let unicode = |flag: u8, text: &[u8]| chunk(b"iTXt", &[XMP, &[0, flag, 0], b"en\0XMP\0", text].concat());
        let pixels = || chunk(b"IDAT", b"");
        for raw in [plain(RAW_EXIF, hex), packed(RAW_EXIF, hex)] {
            assert_eq!(of(&[pixels(), raw]).unwrap(), Metadata { exif: Some(exif.clone()), xmp: None });
        }
        for xmp in [unicode(0, b"<x/>"), unicode(1, &deflated(b"<x/>")), plain(XMP, b"<x/>"), packed(XMP, b"<x/>")] {
            let both = of(&[unicode(0, b"<old/>"), chunk(b"eXIf", b"II"), xmp, chunk(b"IEND", b"")]).unwrap();
            assert_eq!(both, Metadata { exif: Some(b"II".to_vec()), xmp: Some(b"<x/>".to_vec()) });
        }
        // A chunk of EXIF goes before its hexadecimal form; what is behind the end does not count.
        let found = of(&[chunk(b"eXIf", b"MM"), plain(RAW_EXIF, hex), chunk(b"IEND", b""), chunk(b"eXIf", b"II")]);
        assert_eq!(found.unwrap().exif.unwrap(), b"MM");
        // Damage says nothing.
        for damaged in [
            plain(RAW_EXIF, b"\nexif\n 1\n4"),
            plain(RAW_EXIF, b"\nexif\n 1\nxy"),
            chunk(b"zTXt", &[RAW_EXIF, b"\0\0no zlib"].concat()),
            chunk(b"tEXt", b"Comment\0text"),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0"),
        ] {
            let found = of(&[damaged]).unwrap();
            assert!(found.exif.unwrap_or_default().is_empty() && found.xmp.unwrap_or_default().is_empty());
        }
    }

    #[test]
    fn texts_that_inflate_without_end_and_files_that_end_early_are_refused() {
        let bomb = deflated(&vec![b' '; MAX_TEXT as usize + 1]);
        let refused = of(&[chunk(b"zTXt", &[XMP, &[0, 0], &bomb].concat())]).unwrap_err();
        assert!(refused.contains("XML:com.adobe.xmp"), "{refused}");
        // A text that nobody asks for is never inflated.
        of(&[chunk(b"zTXt", &[b"Comment\0\0", bomb.as_slice()].concat())]).unwrap();
        let file = [vec![0; 8], chunk(b"eXIf", b"II*")].concat();
        assert!(text_metadata(&file[..file.len() - 5]).unwrap_err().contains("eXIf"));
        assert_eq!(text_metadata(&file[..12]).unwrap(), Metadata::default());
    }
}
