//! Decoding, resizing and patches against the reference image processor (fixture `image_processor`).

use std::path::PathBuf;

use fieldmark_processor::{
    Alpha, DecodeOptions, ExifOrientation, ImageProcessor, ImageProcessorConfig, Photo, PixelLimits, Size, SizeRule,
    area_resize, smart_resize,
};
use safetensors::SafeTensors;
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/image_processor").join(name)
}

fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(name)).unwrap()).unwrap()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn size(value: &Value) -> Size {
    Size::new(number(&value["height"]), number(&value["width"]))
}

fn pair(value: &Value) -> Size {
    Size::new(number(&value[0]), number(&value[1]))
}

fn limits(value: &Value) -> PixelLimits {
    PixelLimits { min_pixels: number(&value["min_pixels"]), max_pixels: number(&value["max_pixels"]) }
}

fn as_stored() -> DecodeOptions {
    DecodeOptions { exif: ExifOrientation::Ignore, ..DecodeOptions::default() }
}

fn processor() -> ImageProcessor {
    let setting = &json("sizes.json")["pixel_values_setting"];
    let limits = PixelLimits { min_pixels: number(&setting[0]), max_pixels: number(&setting[1]) };
    ImageProcessor::new(ImageProcessorConfig::default()).with_limits(limits)
}

fn largest_difference(ours: &[u8], expected: &[u8]) -> u8 {
    assert_eq!(ours.len(), expected.len());
    ours.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn every_image_matches_the_reference() {
    let bytes = std::fs::read(fixture("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let mut pixel_values = 0;
    for image in json("sizes.json")["images"].as_array().unwrap() {
        let file = image["file"].as_str().unwrap();
        let (name, kind) = file.split_once('.').unwrap();
        let photo = Photo::open(fixture(file), &as_stored()).unwrap();
        assert_eq!(Size::new(photo.height(), photo.width()), size(image), "{file}");
        // PNG is exact; two JPEG decoders may round differently.
        let levels = if kind == "png" { 0 } else { 3 };
        if let Ok(rgb) = expected.tensor(&format!("{name}.rgb")) {
            let off = largest_difference(photo.rgb(), rgb.data());
            assert!(off <= levels, "{file}: decoded, {off} levels off");
        }
        let resized = processor().resize(&photo).unwrap();
        let reference = expected.tensor(&format!("{name}.resized")).unwrap();
        assert_eq!([resized.size().height, resized.size().width, 3], reference.shape(), "{file}");
        let off = largest_difference(resized.rgb(), reference.data());
        assert!(off <= levels, "{file}: resized, {off} levels off");

        let patched = processor().patches(&resized);
        let grid = expected.tensor(&format!("{name}.grid_thw")).unwrap();
        let grid: Vec<i64> = grid.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
        assert_eq!([patched.grid.t as i64, patched.grid.h as i64, patched.grid.w as i64], *grid, "{file}");
        assert_eq!(patched.pixel_values.len(), patched.grid.patches() * 1176);
        assert_eq!(processor().process(&photo).unwrap(), patched);
        if let Ok(tensor) = expected.tensor(&format!("{name}.pixel_values")) {
            // A level is 1/255/0.26 at most.
            let tolerance = 1e-5 + f32::from(levels) * 0.0151;
            for (ours, bytes) in patched.pixel_values.iter().zip(tensor.data().as_chunks().0) {
                assert!((ours - f32::from_le_bytes(*bytes)).abs() <= tolerance, "{file}: {ours}");
            }
            pixel_values += 1;
        }
    }
    assert_eq!(pixel_values, 4);
}

#[test]
fn orientation_and_transparency_are_choices() {
    let bytes = std::fs::read(fixture("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let upright = Photo::open(fixture("rotated.jpg"), &DecodeOptions::default()).unwrap();
    let reference = expected.tensor("rotated.rgb_upright").unwrap();
    assert_eq!([upright.height(), upright.width(), 3], reference.shape());
    assert!(largest_difference(upright.rgb(), reference.data()) <= 3);

    let white = DecodeOptions { alpha: Alpha::White, ..DecodeOptions::default() };
    let reference = expected.tensor("rgba.rgb_on_white").unwrap();
    assert_eq!(Photo::open(fixture("rgba.png"), &white).unwrap().rgb(), reference.data());
}

#[test]
fn sizes_match_the_reference_at_every_setting() {
    let mut compared = 0;
    for image in json("sizes.json")["images"].as_array().unwrap() {
        for setting in image["sizes"].as_array().unwrap() {
            let processor = processor().with_limits(limits(setting));
            let name = image["file"].as_str().unwrap();
            let ours = smart_resize(name, size(image), 28, limits(setting), SizeRule::Current).unwrap();
            assert_eq!(ours, size(setting), "{name}");
            let grid = processor.grid(name, size(image)).unwrap();
            let expected: Vec<usize> = setting["grid_thw"].as_array().unwrap().iter().map(number).collect();
            assert_eq!([grid.t, grid.h, grid.w], *expected, "{name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 50);
}

#[test]
fn smart_resize_matches_now_and_as_trained() {
    for row in json("smart_resize.json").as_array().unwrap() {
        let ours = |rule| smart_resize("row", size(row), number(&row["factor"]), limits(row), rule);
        match row.get("error") {
            Some(error) => {
                let message = ours(SizeRule::Current).unwrap_err().to_string();
                assert!(message.contains(error.as_str().unwrap()), "{row}: {message}");
            }
            None => assert_eq!(ours(SizeRule::Current).unwrap(), pair(&row["out"]), "{row}"),
        }
        match &row["training_out"] {
            Value::Null => assert!(ours(SizeRule::Training).is_err(), "{row}"),
            out => assert_eq!(ours(SizeRule::Training).unwrap(), pair(out), "{row}"),
        }
    }
}

#[test]
fn area_resize_matches_the_training_loader() {
    for row in json("area_resize.json").as_array().unwrap() {
        assert_eq!(area_resize(size(row), limits(row)), pair(&row["out"]), "{row}");
    }
}
