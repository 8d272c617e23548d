//! Reads the images of a row. An image is a path, a `file://` or `data:` URL (RFC 2397), a string of base64, or a mapping
//! as the image columns of Hugging Face data sets have it (`{"bytes": ..., "path": ...}`).

use std::path::PathBuf;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::columns::{has_content, kind_of};
use crate::error::RowProblem;
use crate::row_image::{ImageBytes, RowImage};

/// The images of a column; none if the column is missing or has no content, such as `""` or `[""]`, which exports write
/// for a row without an image.
pub(crate) fn images(object: &Map<String, Value>, column: &str) -> Result<Vec<RowImage>, RowProblem> {
    match object.get(column) {
        None => Ok(Vec::new()),
        Some(value) if !has_content(value) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|value| image(value, column)).collect(),
        Some(value) => Ok(vec![image(value, column)?]),
    }
}

/// Reads an image that a column or a message part `field` gives: a path, `file://` or `data:` URL, a string of
/// base64, or a mapping with one of `bytes`, `path`, `image`, `url` and `base64`.
///
/// # Errors
/// Returns an error for a URL of the network, for bytes that are not base64, and for another type.
pub(crate) fn image(value: &Value, field: &str) -> Result<RowImage, RowProblem> {
    match value {
        Value::String(text) => from_text(text, field),
        Value::Object(mapping) => from_mapping(mapping, field),
        _ => Err(RowProblem::WrongType {
            field: field.into(),
            expected: "a path or a list of paths",
            found: kind_of(value),
        }),
    }
}

fn from_mapping(mapping: &Map<String, Value>, field: &str) -> Result<RowImage, RowProblem> {
    let given = |key: &str| mapping.get(key).filter(|value| !value.is_null());
    if let Some(bytes) = given("bytes") {
        let path = given("path").and_then(Value::as_str).filter(|path| !path.trim().is_empty());
        let name = path.map_or_else(|| format!("bytes in {field:?}"), str::to_owned);
        let bytes = match bytes {
            Value::String(text) => base64(text.rsplit_once(";base64,").map_or(text, |(_, data)| data)),
            Value::Array(list) => list.iter().map(byte).collect::<Option<_>>().ok_or("a number is not a byte".into()),
            _ => Err("neither base64 nor a list of numbers".into()),
        };
        return of_bytes(bytes, name, field);
    }
    if let Some(text) = given("base64").and_then(Value::as_str) {
        return of_bytes(base64(text), format!("bytes in {field:?}"), field);
    }
    match ["path", "image", "url"].iter().find_map(|key| given(key)) {
        Some(Value::String(text)) => from_text(text, field),
        _ => Err(RowProblem::MissingField(format!("{field}.path"))),
    }
}

impl RowImage {
    /// Reads an image as a row may name it: a path, a `file://` or `data:` URL, or an image in base64. Errors call its place
    /// `field`.
    ///
    /// # Errors
    /// Returns an error for an empty text, for a URL of the network, and for bytes that are not base64.
    pub fn from_text(text: &str, field: &str) -> Result<Self, RowProblem> {
        from_text(text, field)
    }
}

/// Reads a path, a URL or a string of base64.
pub(crate) fn from_text(text: &str, field: &str) -> Result<RowImage, RowProblem> {
    let plain = text.trim();
    if plain.is_empty() {
        return Err(RowProblem::Empty(field.into()));
    }
    let name = || format!("bytes in {field:?}");
    if let Some(url) = plain.strip_prefix("data:") {
        let bytes = match url.split_once(',') {
            Some((kind, data)) if kind.ends_with(";base64") => base64(data),
            _ => Err("a data URL without \";base64,\"".into()),
        };
        return of_bytes(bytes, name(), field);
    }
    if is_base64_of_an_image(plain) {
        return of_bytes(base64(plain), name(), field);
    }
    let scheme = plain.split_once("://").map(|(scheme, _)| scheme);
    match scheme.filter(|scheme| !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())) {
        None | Some("file") => Ok(RowImage::Path(PathBuf::from(text))),
        Some(_) => Err(RowProblem::ImageUrl(short(plain))),
    }
}

fn of_bytes(bytes: Result<Vec<u8>, String>, name: String, field: &str) -> Result<RowImage, RowProblem> {
    match bytes {
        Ok(bytes) if bytes.is_empty() => Err(RowProblem::Empty(field.into())),
        Ok(bytes) => Ok(RowImage::Bytes(ImageBytes { name, bytes: bytes.into() })),
        Err(problem) => Err(RowProblem::EmbeddedImage { column: field.into(), problem }),
    }
}

fn byte(value: &Value) -> Option<u8> {
    value.as_u64().and_then(|value| u8::try_from(value).ok())
}

/// The start of a long text, for messages.
pub(crate) fn short(text: &str) -> String {
    let mut start: String = text.chars().take(120).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start
}

/// Base64 in either alphabet, with or without padding and line ends.
fn base64(text: &str) -> Result<Vec<u8>, String> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let letters: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let is_url_safe = letters.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let alphabet = if is_url_safe { &alphabet::URL_SAFE } else { &alphabet::STANDARD };
    GeneralPurpose::new(alphabet, config).decode(letters).map_err(|error| format!("not base64: {error}"))
}

/// Whether a string without a scheme is an image in base64: it begins as a JPEG, PNG or WebP file does in base64, is
/// longer than a name of a file may be, and has no other letters.
fn is_base64_of_an_image(text: &str) -> bool {
    let starts = ["/9j/", "iVBORw0KGgo", "UklGR"];
    text.len() > 255
        && starts.iter().any(|start| text.starts_with(start))
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=\r\n".contains(&byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(value: Value) -> Vec<u8> {
        match image(&value, "images").unwrap() {
            RowImage::Bytes(found) => found.bytes.to_vec(),
            RowImage::Path(path) => panic!("{}", path.display()),
        }
    }

    #[test]
    fn every_way_to_write_bytes_gives_the_same() {
        // The known encoding of these five bytes, whose alphabets differ in the first letter.
        let expected = [0xfb, 0xef, 0xff, 1, 2];
        for value in [
            json!("data:image/png;base64,++//AQI="),
            json!("data:;base64,++//AQI"),
            json!("data:image;base64,--__AQI="),
            json!("data:image/jpeg;charset=x;base64,++//\nAQI="),
            json!({"bytes": "++//AQI=", "path": null}),
            json!({"bytes": [251, 239, 255, 1, 2], "path": "a.png"}),
            json!({"base64": "++//AQI="}),
            json!({"url": "data:image/png;base64,++//AQI="}),
        ] {
            assert_eq!(bytes(value.clone()), expected, "{value}");
        }
        let long = format!("iVBORw0KGgo{}", "A".repeat(260));
        assert_eq!(bytes(json!(long))[..4], [0x89, b'P', b'N', b'G']);
        let named = image(&json!({"bytes": "AAAA", "path": "a.png"}), "images").unwrap();
        assert_eq!((named.name().as_str(), named.path()), ("a.png", None));
    }

    #[test]
    fn a_column_without_content_has_no_image() {
        let read = |value: Value| images(&Map::from_iter([("images".to_owned(), value)]), "images");
        for value in
            [json!(null), json!(""), json!([]), json!([""]), json!([null]), json!({"bytes": null, "path": null})]
        {
            assert_eq!(read(value.clone()), Ok(vec![]), "{value}");
        }
        assert_eq!(read(json!(["a.jpg", ""])), Err(RowProblem::Empty("images".into())));
    }

    #[test]
    fn paths_stay_and_everything_else_is_refused() {
        for value in [json!("a/b.jpg"), json!({"path": "a/b.jpg", "bytes": null}), json!({"image": "a/b.jpg"})] {
            assert_eq!(image(&value, "images"), Ok("a/b.jpg".into()), "{value}");
        }
        assert_eq!(image(&json!("file:///a.jpg"), "images"), Ok("file:///a.jpg".into()));
        for url in ["https://x.org/a.jpg", "http://x.org/a.jpg", "s3://bucket/a.jpg", "hf://datasets/a.jpg"] {
            assert_eq!(image(&json!({"url": url}), "images"), Err(RowProblem::ImageUrl(url.into())));
        }
        for value in [json!("data:image/png,abc"), json!("data:image/png;base64,a*b"), json!({"bytes": [256]})] {
            let problem = image(&value, "images").unwrap_err();
            assert!(matches!(&problem, RowProblem::EmbeddedImage { column, .. } if column == "images"), "{problem}");
        }
        assert_eq!(image(&json!(" "), "images"), Err(RowProblem::Empty("images".into())));
        assert_eq!(image(&json!({}), "images"), Err(RowProblem::MissingField("images.path".into())));
        assert!(matches!(image(&json!(3), "images"), Err(RowProblem::WrongType { .. })));
    }
}
