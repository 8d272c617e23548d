//! The bytes of a data file to text: UTF-8, or UTF-16 as spreadsheets and PowerShell write it. Other encodings are
//! refused, because the bytes do not say which one they are.

/// The longest part of a line that an error shows.
const SHOWN: usize = 40;

/// Decodes a whole file. A byte order mark is left out.
///
/// # Errors
/// Says which line is in another encoding, how it reads in the most common one, and what to do.
pub(super) fn decode(bytes: Vec<u8>) -> Result<String, String> {
    let little = match bytes.as_slice() {
        [0xff, 0xfe, ..] => Some((true, 2)),
        [0xfe, 0xff, ..] => Some((false, 2)),
        // Without a mark, the zeros beside the letters of the first field or of a bracket tell.
        [first, 0, second, 0, ..] if *first != 0 && *second != 0 => Some((true, 0)),
        [0, first, 0, second, ..] if *first != 0 && *second != 0 => Some((false, 0)),
        _ => None,
    };
    let mut text = match little {
        Some((little, start)) => utf16(&bytes[start..], little),
        None => utf8(bytes),
    }?;
    // Some programs of Windows end a file with Ctrl-Z, as DOS did.
    if let Some(rest) = text.trim_end().strip_suffix('\u{1a}') {
        text.truncate(rest.len());
    }
    Ok(text)
}

fn utf16(bytes: &[u8], little: bool) -> Result<String, String> {
    let units = bytes.chunks_exact(2);
    let whole = units.remainder().is_empty();
    let units = units.map(|pair| {
        let pair = [pair[0], pair[1]];
        if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) }
    });
    let text: Result<String, _> = char::decode_utf16(units).collect();
    text.ok().filter(|_| whole).ok_or_else(|| "damaged UTF-16; save the file again, as UTF-8".into())
}

fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map(|text| text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let end = bytes[at..].iter().position(|byte| b"\r\n".contains(byte)).map_or(bytes.len(), |end| at + end);
        let shown = &bytes[start.max(at.saturating_sub(SHOWN))..end.min(at + SHOWN)];
        format!(
            "not UTF-8 (first at byte {at}, line {line}); perhaps Windows-1252, in which the line has {:?}; save the file as \
             UTF-8 (spreadsheets: \"CSV UTF-8\")",
            String::from_utf8(shown.to_vec()).unwrap_or_else(|_| shown.iter().copied().map(windows_1252).collect())
        )
    })
}

/// A letter of Windows-1252. The 32 signs that it has beyond Latin-1 are shown as one.
fn windows_1252(byte: u8) -> char {
    if (0x80..0xa0).contains(&byte) { '\u{fffd}' } else { char::from(byte) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf8_and_utf16_are_read_with_and_without_a_mark() {
        let text = "path\té🍋\n";
        let wide = |to: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to).collect::<Vec<u8>>();
        let (little, big) = (wide(u16::to_le_bytes), wide(u16::to_be_bytes));
        for bytes in [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            [b"\xff\xfe", &little[..]].concat(),
            [b"\xfe\xff", &big[..]].concat(),
            little.clone(),
            big,
        ] {
            assert_eq!(decode(bytes), Ok(text.into()));
        }
        assert!(decode(little[..little.len() - 1].to_vec()).is_err());
        assert_eq!(decode(Vec::new()), Ok(String::new()));
    }

    #[test]
    fn another_encoding_is_shown_as_the_most_common_one() {
        let problem = decode(b"path,class\na.jpg,P\xe2t\xe9\nb.jpg,x\n".to_vec()).unwrap_err();
        for part in ["line 2", "byte 18", "Windows-1252", "a.jpg,P\u{e2}t\u{e9}\"", "UTF-8"] {
            assert!(problem.contains(part), "{part}: {problem}");
        }
    }
}
