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
