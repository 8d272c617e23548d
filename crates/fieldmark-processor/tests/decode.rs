//! Image files of every kind against Pillow (fixture `decode`), orientations, and files that are no good.

use std::path::PathBuf;

use fieldmark_processor::{
    Alpha, DecodeOptions, ExifOrientation, ImageProcessor, ImageProcessorConfig, Photo, PixelLimits, PreResize,
    ProcessorError, Size, SizeRule,
};
use proptest::prelude::*;
use safetensors::SafeTensors;

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(path)
}

fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(fixture(path)).unwrap()
}

fn decode(bytes: &[u8], options: DecodeOptions) -> Result<Photo, ProcessorError> {
    Photo::decode(bytes, "sample.jpg", &options)
}

fn on_white() -> DecodeOptions {
    DecodeOptions { alpha: Alpha::White, ..DecodeOptions::default() }
}

#[test]
fn every_kind_of_file_decodes_as_in_pillow() {
    let expected = bytes("decode/expected.safetensors");
    let expected = SafeTensors::deserialize(&expected).unwrap();
    // Levels: lossless formats are exact, JPEG and lossy WebP round differently.
    for (file, levels) in [
        ("cmyk.jpg", 3),
        ("gray.jpg", 3),
        ("progressive.jpg", 3),
        ("chroma_422.jpg", 4),
        ("gray_alpha.png", 0),
        ("bilevel.png", 0),
        ("palette_alpha.png", 0),
        ("rgb16.png", 0),
        ("rgba16.png", 0),
        ("gray16.png", 0),
        ("alpha.webp", 0),
        ("lossy.webp", 3),
    ] {
        let data = bytes(&format!("decode/{file}"));
        let name = file.split('.').next().unwrap();
        for (key, options) in [("rgb", DecodeOptions::default()), ("rgb_on_white", on_white())] {
            let Ok(tensor) = expected.tensor(&format!("{name}.{key}")) else { continue };
            let photo = decode(&data, options).unwrap();
            assert_eq!([photo.height(), photo.width(), 3], tensor.shape(), "{file}");
            let off = photo.rgb().iter().zip(tensor.data()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(off <= levels, "{file}, {key}: {off} levels off");
        }
    }
}

#[test]
fn all_eight_orientations_turn_the_picture_upright() {
    let stored = bytes("image_processor/rotated.jpg");
    // The entry of tag 0x0112, of type short, count 1, in either byte order.
    let little = stored.windows(8).position(|w| w == [0x12, 0x01, 3, 0, 1, 0, 0, 0]).map(|at| at + 8);
    let big = stored.windows(8).position(|w| w == [0x01, 0x12, 0, 3, 0, 0, 0, 1]).map(|at| at + 9);
    let at = little.or(big).unwrap();
    let flat = decode(&stored, DecodeOptions { exif: ExifOrientation::Ignore, ..Default::default() }).unwrap();
    let (h, w) = (flat.height(), flat.width());
    for orientation in 1..=8u8 {
        let mut file = stored.clone();
        file[at] = orientation;
        let photo = decode(&file, DecodeOptions::default()).unwrap();
        let (height, width) = if orientation < 5 { (h, w) } else { (w, h) };
        assert_eq!((photo.height(), photo.width()), (height, width), "{orientation}");
        for y in 0..height {
            for x in 0..width {
                // Where the EXIF standard says that row y and column x of the upright picture are stored.
                let (sy, sx) = match orientation {
                    1 => (y, x),
                    2 => (y, w - 1 - x),
                    3 => (h - 1 - y, w - 1 - x),
                    4 => (h - 1 - y, x),
                    5 => (x, y),
                    6 => (h - 1 - x, y),
                    7 => (h - 1 - x, w - 1 - y),
                    _ => (x, w - 1 - y),
                };
                let (ours, there) = ((y * width + x) * 3, (sy * w + sx) * 3);
                assert_eq!(photo.rgb()[ours..ours + 3], flat.rgb()[there..there + 3], "{orientation}: {y}, {x}");
            }
        }
        let ignored = DecodeOptions { exif: ExifOrientation::Ignore, ..Default::default() };
        assert_eq!(decode(&file, ignored).unwrap().rgb(), flat.rgb());
    }
}

/// A chunk of a PNG file. Decoders skip ancillary chunks whose checksum is wrong, so it must be right.
fn chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let named = [kind.as_slice(), content].concat();
    let mut sum = flate2::Crc::new();
    sum.update(&named);
    [&(content.len() as u32).to_be_bytes(), named.as_slice(), &sum.sum().to_be_bytes()].concat()
}

/// A PNG file with chunks behind its header, or before its end.
fn with_chunks(png: &[u8], chunks: &[u8], behind_pixels: bool) -> Vec<u8> {
    let at = if behind_pixels { png.len() - 12 } else { 33 };
    [&png[..at], chunks, &png[at..]].concat()
}

const XMP: &[u8] = br#"<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>"#;

#[test]
fn orientation_in_text_chunks_and_xmp_is_honoured() {
    let png = bytes("image_processor/odd.png");
    let jpeg = bytes("image_processor/photo.jpg");
    let exif = b"\nexif\n      32\n4578696600004d4d002a00000008000101120003\n000000010006000000000000\n";
    let xmp = || chunk(b"iTXt", &[b"XML:com.adobe.xmp\0\0\0\0\0", XMP].concat());
    let segment = [b"http://ns.adobe.com/xap/1.0/\0", XMP].concat();
    let app1 = [&[0xff, 0xe1], ((segment.len() + 2) as u16).to_be_bytes().as_slice(), &segment].concat();
    let raw = || chunk(b"tEXt", &[b"Raw profile type exif\0".as_slice(), exif].concat());
    let files = [
        ("XMP", with_chunks(&png, &xmp(), false), &png),
        ("XMP behind the pixels", with_chunks(&png, &xmp(), true), &png),
        ("ImageMagick's text", with_chunks(&png, &raw(), false), &png),
        ("XMP in JPEG", [&jpeg[..2], &app1, &jpeg[2..]].concat(), &jpeg),
    ];
    for (name, file, plain) in files {
        let upright = decode(&file, DecodeOptions::default()).unwrap();
        let stored = decode(plain, DecodeOptions::default()).unwrap();
        let (height, width) = (stored.height(), stored.width());
        assert_eq!((upright.height(), upright.width()), (width, height), "{name}");
        for (y, x) in (0..width).flat_map(|y| (0..height).map(move |x| (y, x))) {
            let (ours, there) = ((y * height + x) * 3, ((height - 1 - x) * width + y) * 3);
            assert_eq!(upright.rgb()[ours..ours + 3], stored.rgb()[there..there + 3], "{name}: {y}, {x}");
        }
        let ignored = decode(&file, DecodeOptions { exif: ExifOrientation::Ignore, ..Default::default() }).unwrap();
        assert_eq!(ignored.rgb(), stored.rgb(), "{name}");
    }
    let cut = with_chunks(&png, &xmp()[..40], true);
    assert!(matches!(
        decode(&cut[..cut.len() - 12], DecodeOptions::default()),
        Err(ProcessorError::DamagedImage { .. })
    ));
}

#[test]
fn ninety_megapixels_are_read_with_a_note_and_twice_as_many_refused() {
    let limit = DecodeOptions::default().max_decoded_pixels;
    assert_eq!(limit, 178_956_970);
    // One bit a pixel.
    let header =
        |width: u32, height: u32| [width.to_be_bytes().as_slice(), &height.to_be_bytes(), &[1, 0, 0, 0, 0]].concat();
    let empty = |width: u32, height: u32| {
        let chunks = [chunk(b"IHDR", &header(width, height)), chunk(b"IDAT", b"")].concat();
        let file = [b"\x89PNG\r\n\x1a\n".as_slice(), &chunks, &chunk(b"IEND", b"")].concat();
        decode(&file, DecodeOptions::default()).unwrap_err()
    };
    // Large enough to be refused unread, or not: then it is found to be cut short.
    assert!(matches!(empty(13_378, 13_378), ProcessorError::TooManyPixels { limit: 178_956_970, .. }));
    assert!(matches!(empty(13_377, 13_377), ProcessorError::DamagedImage { .. }));
    let long = empty(2_147_483_647, 1);
    assert!(matches!(long, ProcessorError::TooManyPixels { width: 2_147_483_647, height: 1, .. }), "{long}");
    let large = Photo::from_rgb("large.png", 9460, 9459, vec![0; 9460 * 9459 * 3]).unwrap();
    assert!(large.note().is_some_and(|note| note.contains("large.png") && note.contains("9459×9460")));
    assert!(Photo::from_rgb("small.png", 80, 80, vec![0; 19_200]).unwrap().note().is_none());
}

#[test]
fn a_jpeg_of_thousands_of_scans_is_refused() {
    let jpeg = bytes("decode/progressive.jpg");
    let marker = |from: usize| jpeg[from..].windows(2).position(|two| two == [0xff, 0xda]).map(|at| at + from);
    let first = marker(0).unwrap();
    let second = marker(first + 2).unwrap();
    let file = [&jpeg[..second], &jpeg[first..second].repeat(1000), &jpeg[second..]].concat();
    let error = decode(&file, DecodeOptions::default()).unwrap_err().to_string();
    assert!(error.contains("scans") && error.contains("1000"), "{error}");
}

#[test]
fn content_and_not_the_name_decides_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("really_a_png.jpg");
    std::fs::copy(fixture("image_processor/odd.png"), &path).unwrap();
    assert_eq!(Photo::open(&path, &DecodeOptions::default()).unwrap().height(), 53);
}

#[test]
fn every_truncation_is_refused_by_name() {
    for file in [
        "image_processor/photo.jpg",
        "image_processor/odd.png",
        "image_processor/rgba.png",
        "decode/alpha.webp",
        "decode/lossy.webp",
        "decode/progressive.jpg",
        "decode/cmyk.jpg",
        "image_processor/rotated.jpg",
    ] {
        let whole = bytes(file);
        // A PNG is whole without its last chunk, which is empty.
        let end = whole.len() - if file.ends_with("png") { 12 } else { 0 };
        for length in 0..end {
            match decode(&whole[..length], DecodeOptions::default()) {
                Err(ProcessorError::DamagedImage { name, .. } | ProcessorError::NotAnImage { name, .. }) => {
                    assert_eq!(name, "sample.jpg")
                }
                other => panic!("{file} cut to {length} of {}: {other:?}", whole.len()),
            }
        }
    }
}

#[test]
fn a_scan_that_is_cut_and_closed_is_refused() {
    for file in [
        "image_processor/photo.jpg",
        "image_processor/rotated.jpg",
        "decode/gray.jpg",
        "decode/cmyk.jpg",
        "decode/chroma_422.jpg",
        "decode/progressive.jpg",
    ] {
        let whole = bytes(file);
        let mut marks = whole.windows(2).enumerate().filter(|(_, two)| **two == [0xff, 0xda]);
        let (first, last) = (marks.clone().next().unwrap().0, marks.next_back().unwrap().0);
        // Of a progressive file only the first scan: one without its later scans is whole, only coarser.
        let next = whole[first + 2..].windows(2).position(|two| two[0] == 0xff && ![0, 0xff].contains(&two[1]));
        let end = if first == last { whole.len() - 2 } else { first + 2 + next.unwrap() };
        // Behind the header of the scan.
        let begin = first + 2 + usize::from(u16::from_be_bytes([whole[first + 2], whole[first + 3]]));
        let closed = |length: usize, fill: &[u8]| {
            decode(&[&whole[..length], fill, &[0xff, 0xd9]].concat(), DecodeOptions::default())
        };
        closed(end, &[]).unwrap();
        let mut refused = 0;
        for length in begin..end {
            for fill in [&[][..], &[0xff]] {
                match closed(length, fill) {
                    Err(ProcessorError::DamagedImage { format: "JPEG", .. }) => refused += 1,
                    // What is missing may be bits of the very last number, which any bits can stand for.
                    Ok(_) => assert!(length + 2 >= end, "{file} cut to {length}"),
                    other => panic!("{file} cut to {length}: {other:?}"),
                }
            }
        }
        assert!(refused >= 2 * (end - begin) - 4, "{file}: {refused} of {}", 2 * (end - begin));
        // What stands behind a whole image does not matter.
        let more = [&whole, &whole[..40]].concat();
        let [alone, more] = [&whole, &more].map(|file| decode(file, DecodeOptions::default()).unwrap());
        assert_eq!(more, alone, "{file}");
    }
}

#[test]
fn a_file_of_another_format_is_named_with_what_to_do() {
    for (content, format) in [
        (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "AVIF"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"%PDF-1.4", "PDF"),
        (b"<?xml version='1.0'?><svg/>", "SVG"),
        (b"II*\0\x08\0\0\0", "TIFF or camera raw"),
        (b"GIF89a\x01\0\x01\0", "GIF"),
    ] {
        let error = decode(content, DecodeOptions::default()).unwrap_err();
        assert!(
            matches!(&error, ProcessorError::OtherFormat { name, format: found } if name == "sample.jpg" && *found == format)
        );
        assert!(error.to_string().contains("convert it to JPEG or PNG"), "{error}");
    }
}

#[test]
fn a_thumbnail_inside_does_not_hide_that_the_photo_is_cut() {
    let whole = bytes("image_processor/photo.jpg");
    let thumbnail = bytes("decode/gray.jpg");
    let mut file = whole[..2].to_vec();
    file.extend([0xFF, 0xE1]);
    file.extend(u16::try_from(thumbnail.len() + 2).unwrap().to_be_bytes());
    file.extend(&thumbnail);
    file.extend(&whole[2..]);
    assert_eq!(decode(&file, DecodeOptions::default()).unwrap().width(), 101);
    file.truncate(file.len() - 400);
    assert!(matches!(decode(&file, DecodeOptions::default()), Err(ProcessorError::DamagedImage { .. })));
}

#[test]
fn bad_files_say_what_they_are_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, content: Option<&[u8]>, options: DecodeOptions| {
        let path = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = Photo::open(&path, &options).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(name), "{message}");
        assert_eq!(message.lines().count(), 1);
        error
    };
    let usual = DecodeOptions::default();
    assert!(matches!(open("missing.jpg", None, usual), ProcessorError::Io { .. }));
    for (name, content) in [("text.jpg", &b"hello"[..]), ("empty.png", b"")] {
        assert!(matches!(open(name, Some(content), usual), ProcessorError::NotAnImage { .. }), "{name}");
    }
    let photo = bytes("image_processor/photo.jpg");
    let cut = open("cut.jpg", Some(&photo[..2000]), usual);
    assert!(matches!(cut, ProcessorError::DamagedImage { format: "JPEG", .. }), "{cut}");
    let large = open("large.jpg", Some(&photo), DecodeOptions { max_file_bytes: 1000, ..usual });
    assert!(
        matches!(large, ProcessorError::FileTooLarge { bytes, limit: 1000, .. } if bytes == photo.len() as u64),
        "{large}"
    );
    let wide = open("wide.jpg", Some(&photo), DecodeOptions { max_decoded_pixels: 101 * 75 - 1, ..usual });
    assert!(matches!(wide, ProcessorError::TooManyPixels { width: 101, height: 75, limit: 7574, .. }), "{wide}");
    let enough = DecodeOptions { max_decoded_pixels: 101 * 75, max_file_bytes: photo.len() as u64, ..usual };
    assert!(Photo::open(folder.path().join("wide.jpg"), &enough).is_ok());
    let png = bytes("image_processor/odd.png");
    let bomb = open("bomb.png", Some(&png), DecodeOptions { max_decoded_pixels: 100, ..usual });
    assert!(matches!(bomb, ProcessorError::TooManyPixels { width: 37, height: 53, .. }), "{bomb}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_anywhere_never_panics(at in 0usize..3000, value: u8, file in 0usize..4) {
        let name = ["image_processor/photo.jpg", "image_processor/palette.png", "decode/alpha.webp", "decode/lossy.webp"][file];
        let mut data = bytes(name);
        let at = at % data.len();
        data[at] = value;
        if let Ok(photo) = decode(&data, DecodeOptions { max_decoded_pixels: 1 << 20, ..Default::default() }) {
            prop_assert_eq!(photo.rgb().len(), photo.height() * photo.width() * 3);
        }
    }

    #[test]
    fn any_shape_becomes_whole_patches_within_the_limits(height in 1usize..400, width in 1usize..400) {
        prop_assume!(height.max(width) <= 200 * height.min(width));
        let limits = PixelLimits { min_pixels: 3136, max_pixels: 50_176 };
        let processor = ImageProcessor::new(ImageProcessorConfig::default()).with_limits(limits);
        let photo = Photo::from_rgb("grey", height, width, vec![93; height * width * 3]).unwrap();
        let resized = processor.resize(&photo).unwrap();
        // Weights that sum to one leave an even surface as it is.
        prop_assert!(resized.rgb().iter().all(|&value| value == 93));
        let Size { height: h, width: w } = resized.size();
        prop_assert!(h.is_multiple_of(28) && w.is_multiple_of(28));
        // A side is never less than one token, so extreme shapes may exceed the limit.
        prop_assert!(h * w <= limits.max_pixels || h == 28 || w == 28);
        prop_assert!(h * w >= limits.min_pixels);
        let patched = processor.patches(&resized);
        prop_assert_eq!((patched.grid.h, patched.grid.w), (h / 14, w / 14));
        prop_assert_eq!(patched.grid, processor.grid("grey", Size::new(height, width)).unwrap());
        prop_assert_eq!(patched.pixel_values.len(), patched.grid.patches() * 1176);
    }
}

#[test]
fn training_resizes_twice() {
    // Worked examples of the released data loader: 500×375 and 1600×1200 (width×height).
    let processor = ImageProcessor::new(ImageProcessorConfig::default())
        .with_pre_resize(Some(PreResize::Area(PixelLimits::TAPO)))
        .with_rule(SizeRule::Training);
    assert_eq!(PreResize::Area(PixelLimits::TAPO).steps(Size::new(375, 500)), [Size::new(387, 517)]);
    assert_eq!(PreResize::Area(PixelLimits::TAPO).steps(Size::new(1200, 1600)), [Size::new(867, 1156)]);
    for (height, width, tokens) in [(375, 500, 252), (1200, 1600, 1271)] {
        let grid = processor.grid("photo", Size::new(height, width)).unwrap();
        assert_eq!(processor.config().tokens(grid), tokens);
    }
    let photo = Photo::open(fixture("image_processor/odd.png"), &DecodeOptions::default()).unwrap();
    let resized = processor.resize(&photo).unwrap();
    let grid = processor.grid("photo", Size::new(53, 37)).unwrap();
    assert_eq!(resized.size(), Size::new(grid.h * 14, grid.w * 14));
    // SFT's loader then lifts short sides to 28 and flattens what is longer than 200 times its width.
    let sft = PreResize::AreaThenSides(PixelLimits { min_pixels: 1, max_pixels: 10_000_000 });
    assert_eq!(sft.steps(Size::new(10, 100)), [Size::new(28, 100)]);
    assert_eq!(sft.steps(Size::new(30, 7000)), [Size::new(30, 5400)]);
    assert_eq!(sft.steps(Size::new(7000, 10)), [Size::new(7000, 28), Size::new(5040, 28)]);
    assert_eq!(sft.steps(Size::new(28, 5600)), []);
}

#[test]
fn extreme_shapes_are_refused_by_name() {
    let photo = Photo::from_rgb("strip.png", 1, 300, vec![0; 900]).unwrap();
    let processor = ImageProcessor::new(ImageProcessorConfig::default());
    let message = processor.process(&photo).unwrap_err().to_string();
    assert!(message.contains("strip.png") && message.contains("must be smaller than 200, got 300.0"), "{message}");
    // 4.51.3 lets a side vanish; that is an error here, and not an empty image.
    let thin = Photo::from_rgb("thin.png", 28, 5600, vec![0; 28 * 5600 * 3]).unwrap();
    let limits = PixelLimits { min_pixels: 784, max_pixels: 6_272 };
    let trained = processor.with_limits(limits).with_rule(SizeRule::Training);
    let error = trained.process(&thin).unwrap_err();
    assert!(matches!(&error, ProcessorError::Size { name, .. } if name == "thin.png"), "{error}");
    assert!(trained.with_rule(SizeRule::Current).process(&thin).is_ok());
}

#[test]
fn no_image_is_enlarged_beyond_all_memory_on_its_way_to_a_small_one() {
    let photo = Photo::from_rgb("small.png", 40, 40, vec![0; 4800]).unwrap();
    let huge = PixelLimits { min_pixels: 900_000_000_000, max_pixels: 900_000_000_000 };
    for before in [PreResize::Area(huge), PreResize::AreaThenSides(huge)] {
        let processor = ImageProcessor::new(ImageProcessorConfig::default()).with_pre_resize(Some(before));
        let error = processor.process(&photo).unwrap_err();
        assert!(matches!(&error, ProcessorError::Size { name, .. } if name == "small.png"), "{error}");
    }
}

#[test]
fn crops_and_flips_take_the_pixels_they_say() {
    let rgb: Vec<u8> = (0..4 * 5 * 3).collect();
    let photo = Photo::from_rgb("grid", 4, 5, rgb.clone()).unwrap();
    let crop = photo.crop(1, 2, 2, 3).unwrap();
    assert_eq!((crop.height(), crop.width()), (2, 3));
    for (y, x, c) in (0..2).flat_map(|y| (0..3).flat_map(move |x| (0..3).map(move |c| (y, x, c)))) {
        assert_eq!(crop.rgb()[(y * 3 + x) * 3 + c], rgb[((y + 1) * 5 + x + 2) * 3 + c]);
        assert_eq!(crop.flip_horizontal().rgb()[(y * 3 + x) * 3 + c], crop.rgb()[(y * 3 + 2 - x) * 3 + c]);
    }
    for (top, left, height, width) in [(3, 0, 2, 1), (0, 5, 1, 1), (0, 0, 0, 1), (usize::MAX, 0, 2, 1)] {
        assert!(photo.crop(top, left, height, width).is_err());
    }
    assert!(Photo::from_rgb("short", 2, 2, vec![0; 11]).is_err());
}

#[test]
fn preprocessor_config_is_read_in_its_old_and_its_new_form() {
    let read = |text: &str| ImageProcessorConfig::from_json(text, "preprocessor_config.json");
    let old = r#"{"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}"#;
    assert_eq!(read(old).unwrap(), ImageProcessorConfig::default());
    let new = r#"{"size": {"shortest_edge": 784, "longest_edge": 5488}, "do_convert_rgb": true, "resample": 3}"#;
    assert_eq!(read(new).unwrap().limits, PixelLimits { min_pixels: 784, max_pixels: 5488 });
    let both = r#"{"min_pixels": 1000, "size": {"shortest_edge": 784, "longest_edge": 5488}}"#;
    assert_eq!(read(both).unwrap().limits, PixelLimits { min_pixels: 1000, max_pixels: 5488 });
    assert_eq!(read("{}").unwrap().limits, PixelLimits { min_pixels: 3136, max_pixels: 1_003_520 });
    for (text, key) in [
        (r#"{"patch_size": 0}"#, "patch_size"),
        (r#"{"patch_size": 18446744073709551615}"#, "patch_size"),
        (r#"{"merge_size": 1025}"#, "merge_size"),
        (r#"{"max_pixels": 0}"#, "max_pixels"),
        (r#"{"resample": 2}"#, "resample"),
        (r#"{"do_resize": false}"#, "do_resize"),
        (r#"{"min_pixels": 10, "max_pixels": 5}"#, "min_pixels"),
        (r#"{"image_std": [1, 0, 1]}"#, "image_std"),
        (r#"{"patch_size": "14"}"#, "patch_size"),
        (r#"{"merge_size": 1.5}"#, "merge_size"),
        (r#"{"max_pixels": -1}"#, "max_pixels"),
        (r#"{"rescale_factor": "1/255"}"#, "rescale_factor"),
        (r#"{"image_mean": [0.5, 0.5]}"#, "image_mean"),
        (r#"{"image_std": [0.5, 0.5, "x"]}"#, "image_std"),
        (r#"{"do_normalize": 1}"#, "do_normalize"),
        (r#"{"size": {"shortest_edge": "a", "longest_edge": 5488}}"#, "size.shortest_edge"),
        (r#"{"size": {"min_pixels": 3136, "max_pixels": -5}}"#, "size.max_pixels"),
        // Each would leave a limit to its default.
        (r#"{"size": 448}"#, "size"),
        (r#"{"size": {}}"#, "size"),
        (r#"{"size": {"shortest_edge": 784}}"#, "size"),
        (r#"{"size": {"shortest_edge": 784, "longest_edge": null}}"#, "size"),
        (r#"{"size": {"shortest_edge": 784, "max_pixels": 5488}}"#, "size"),
        (r#"{"size": {"height": 448, "width": 448}}"#, "size"),
        (r#"{"size": {"shortest_edge": 784, "longest_edge": 5488, "height": 448}}"#, "size"),
        (r#"{"min_pixels": 784, "max_pixels": 5488, "size": {"height": 448, "width": 448}}"#, "size"),
        // Processors of other models.
        (r#"{"image_processor_type": "CLIPImageProcessor"}"#, "image_processor_type"),
        (r#"{"image_processor_type": 3}"#, "image_processor_type"),
        (r#"{"feature_extractor_type": "CLIPFeatureExtractor"}"#, "feature_extractor_type"),
        (r#"{"do_center_crop": true}"#, "do_center_crop"),
        (r#"{"do_pad": true}"#, "do_pad"),
        (r#"{"crop_size": {"height": 224, "width": 224}}"#, "crop_size"),
        ("[", "preprocessor_config.json"),
        ("[]", "image_processor"),
    ] {
        let error = read(text).unwrap_err();
        let ProcessorError::Config { path, key: found, .. } = &error else { panic!("{error}") };
        assert!(found == key && path.ends_with("preprocessor_config.json"), "{text}: {error}");
    }
    for (text, limits) in [
        (r#"{"size": {"min_pixels": 784, "max_pixels": 5488}}"#, [784, 5488]),
        (r#"{"size": {"shortest_edge": 784.0, "longest_edge": 5488, "height": null}}"#, [784, 5488]),
        (r#"{"size": null, "max_pixels": 5488, "do_pad": null, "crop_size": null}"#, [3136, 5488]),
        (r#"{"image_processor_type": "Qwen2VLImageProcessorFast", "do_center_crop": false}"#, [3136, 1_003_520]),
        (r#"{"image_processor_type": "Qwen2_5_VLImageProcessor"}"#, [3136, 1_003_520]),
    ] {
        let [min_pixels, max_pixels] = limits;
        assert_eq!(read(text).unwrap().limits, PixelLimits { min_pixels, max_pixels }, "{text}");
    }
}
