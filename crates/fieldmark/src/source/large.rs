//! Tells of photographs that are so large that it may be a mistake: once for all of them, before any is decoded.

use std::{collections::BTreeSet, fs::File, io::Cursor};

use fieldmark_data::RowImage;
use fieldmark_processor::{Photo, Size};

/// Returns a note about the photographs with very many pixels: how many there are, and the largest. Only the headers are
/// read, and what cannot be read is left to whoever decodes it.
pub fn large_note<'a>(images: impl IntoIterator<Item = &'a RowImage>) -> Option<String> {
    let (mut seen, mut count) = (BTreeSet::new(), 0usize);
    let mut largest: Option<(usize, Size, String)> = None;
    for image in images {
        let name = image.name();
        let Some(size) = size_of(image).filter(|&size| Photo::is_large(size)) else { continue };
        if !seen.insert(name.clone()) {
            continue;
        }
        count += 1;
        let pixels = size.height * size.width;
        if largest.as_ref().is_none_or(|(most, ..)| pixels > *most) {
            largest = Some((pixels, size, name));
        }
    }
    let (_, Size { height, width }, name) = largest?;
    let (have, them) = if count == 1 { ("photograph has", "it is") } else { ("photographs have", "the largest is") };
    Some(format!(
        "{count} {have} more than {} pixels; {them} {name} with {width}×{height}. Smaller copies of such large photographs \
         are read faster",
        Photo::MANY_PIXELS
    ))
}

fn size_of(image: &RowImage) -> Option<Size> {
    match image {
        RowImage::Path(path) => Photo::size_in_header(File::open(path).ok()?),
        RowImage::Bytes(image) => Photo::size_in_header(Cursor::new(&image.bytes)),
    }
}

#[cfg(test)]
mod tests {
    use fieldmark_data::ImageBytes;
    use image::{ImageFormat, RgbImage};

    use super::*;

    /// A small image whose header says another size.
    fn file(format: ImageFormat, height: u16, width: u16) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        RgbImage::new(8, 8).write_to(&mut file, format).unwrap();
        let mut bytes = file.into_inner();
        if let ImageFormat::Jpeg = format {
            // Behind the marker: two bytes of length, one of precision.
            let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
            bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
            bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn the_header_of_every_format_is_read_and_each_photograph_counts_once() {
        let image = |name: &str, bytes: Vec<u8>| RowImage::Bytes(ImageBytes { name: name.into(), bytes: bytes.into() });
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            assert_eq!(size_of(&image("a", file(format, 8, 8))), Some(Size::new(8, 8)), "{format:?}");
        }
        let large = image("large", file(ImageFormat::Jpeg, 9_000, 10_000));
        let larger = image("larger", file(ImageFormat::Jpeg, 10_000, 9_500));
        let others = [image("small", file(ImageFormat::Jpeg, 8_000, 8_000)), image("text", b"text".to_vec())];
        assert_eq!(large_note(&others), None);
        let one = large_note(others.iter().chain([&large, &large])).unwrap();
        assert!(one.starts_with("1 photograph ") && one.contains("large with 10000×9000"), "{one}");
        let two = large_note([&large, &larger, &others[0]]).unwrap();
        assert!(two.starts_with("2 photographs ") && two.contains("larger with 9500×10000"), "{two}");
    }
}
