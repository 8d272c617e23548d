//! Compares the image processor: decoded and resized pixels, patches, and tables of sizes.

use std::path::Path;

use fieldmark_processor::{
    Alpha, DecodeOptions, ExifOrientation, ImageProcessor, ImageProcessorConfig, Photo, PixelLimits, Size, SizeRule,
    area_resize, smart_resize,
};
use serde::Deserialize;

use super::{
    compare::{Report, Status, Tolerance},
    error::{ParityError, in_file},
    fixture::Fixture,
    json::json,
};

#[derive(Deserialize)]
struct Sizes {
    pixel_values_setting: [usize; 2],
    images: Vec<ImageEntry>,
}

#[derive(Deserialize)]
struct ImageEntry {
    file: String,
    sizes: Vec<SizeEntry>,
}

#[derive(Deserialize)]
struct SizeEntry {
    #[serde(flatten)]
    limits: Limits,
    height: usize,
    width: usize,
    grid_thw: [usize; 3],
}

#[derive(Deserialize, Clone, Copy)]
struct Limits {
    min_pixels: usize,
    max_pixels: usize,
}

impl From<Limits> for PixelLimits {
    fn from(limits: Limits) -> Self {
        Self { min_pixels: limits.min_pixels, max_pixels: limits.max_pixels }
    }
}

#[derive(Deserialize)]
struct SmartResize {
    height: usize,
    width: usize,
    factor: usize,
    #[serde(flatten)]
    limits: Limits,
    out: Option<[usize; 2]>,
    training_out: Option<[usize; 2]>,
}

#[derive(Deserialize)]
struct AreaResize {
    height: usize,
    width: usize,
    #[serde(flatten)]
    limits: Limits,
    out: [usize; 2],
}

pub(super) fn compare(folder: &Path) -> Result<Report, ParityError> {
    let mut fixture = Fixture::open(folder)?;
    let mut report = Report::default();
    let sizes: Sizes = json(folder, "sizes.json")?;
    let [min_pixels, max_pixels] = sizes.pixel_values_setting;
    let config = config(folder)?;
    let patch = config.patch_size;
    let processor = ImageProcessor::new(config);
    let setting = checked(folder, "pixel_values_setting", PixelLimits { min_pixels, max_pixels })?;
    for image in &sizes.images {
        one(folder, &mut fixture, &mut report, &processor.clone().with_limits(setting), image)?;
        for entry in &image.sizes {
            let limits = checked(folder, &image.file, entry.limits.into())?;
            let photo = Photo::open(folder.join(&image.file), &as_stored())?;
            let grid =
                processor.clone().with_limits(limits).grid(photo.name(), Size::new(photo.height(), photo.width()))?;
            let name = format!("sizes.json {} {}..{}", image.file, entry.limits.min_pixels, entry.limits.max_pixels);
            let expected = (entry.grid_thw, entry.height, entry.width);
            report.equal(&name, &([grid.t, grid.h, grid.w], grid.h * patch, grid.w * patch), &expected);
        }
    }
    tables(folder, &mut report)?;
    fixture.finish(&mut report);
    Ok(report)
}

/// Reads the image processor's settings from the folder. The default is that of the published checkpoints.
pub(super) fn config(folder: &Path) -> Result<ImageProcessorConfig, ParityError> {
    let path = folder.join("preprocessor_config.json");
    if path.is_file() { Ok(ImageProcessorConfig::from_file(path)?) } else { Ok(ImageProcessorConfig::default()) }
}

/// Checks limits from `sizes.json`. Above 2^28 pixels the patches would take gigabytes.
fn checked(folder: &Path, item: &str, limits: PixelLimits) -> Result<PixelLimits, ParityError> {
    let PixelLimits { min_pixels, max_pixels } = limits;
    if min_pixels <= max_pixels && (1..=1 << 28).contains(&max_pixels) {
        return Ok(limits);
    }
    let reason = format!(
        "no image can have {min_pixels} to {max_pixels} pixels; the first limit must be at most the second, and the \
         second from 1 to 2^28"
    );
    Err(in_file(folder, "sizes.json", item, reason))
}

fn as_stored() -> DecodeOptions {
    DecodeOptions { exif: ExifOrientation::Ignore, ..DecodeOptions::default() }
}

/// Compares one image at every step from the file to its patches. JPEG pixels may differ by three levels, PNG pixels by
/// one.
fn one(
    folder: &Path,
    fixture: &mut Fixture,
    report: &mut Report,
    processor: &ImageProcessor,
    image: &ImageEntry,
) -> Result<(), ParityError> {
    let path = folder.join(&image.file);
    let (name, ending) = image.file.split_once('.').unwrap_or((&image.file, ""));
    let levels = if ending == "png" { 1.0 } else { 3.0 };
    let tolerance = Tolerance::Absolute(levels);
    let decode = |options: DecodeOptions| Photo::open(&path, &options);
    let photo = decode(as_stored())?;
    let mut check = |key: &str, rgb: &[u8], tolerance| {
        let values: Vec<f64> = rgb.iter().map(|&byte| f64::from(byte)).collect();
        fixture.check_values(report, &format!("{name}.{key}"), &values, tolerance);
    };
    check("rgb", photo.rgb(), tolerance);
    check("rgb_upright", decode(DecodeOptions::default())?.rgb(), tolerance);
    check("rgb_on_white", decode(DecodeOptions { alpha: Alpha::White, ..as_stored() })?.rgb(), tolerance);
    let resized = processor.resize(&photo)?;
    check("resized", resized.rgb(), tolerance);

    let patched = processor.patches(&resized);
    let grid = [patched.grid.t, patched.grid.h, patched.grid.w].map(|side| side as f64);
    fixture.check_values(report, &format!("{name}.grid_thw"), &grid, Tolerance::Exact);
    // The patches come from our own pixels. One level changes a normalised value by at most 1/255/0.26.
    let off = if ending == "png" { 1e-5 } else { 1e-5 + levels / 255.0 / 0.26 };
    let values: Vec<f64> = patched.pixel_values.iter().map(|&x| f64::from(x)).collect();
    fixture.check_values(report, &format!("{name}.pixel_values"), &values, Tolerance::Absolute(off));
    Ok(())
}

fn tables(folder: &Path, report: &mut Report) -> Result<(), ParityError> {
    let rows: Vec<SmartResize> = json(folder, "smart_resize.json")?;
    for row in &rows {
        for (rule, expected) in [(SizeRule::Current, row.out), (SizeRule::Training, row.training_out)] {
            let size = Size::new(row.height, row.width);
            let found = smart_resize("row", size, row.factor, row.limits.into(), rule).ok();
            let name = format!(
                "smart_resize.json {rule:?} {}x{} {}..{}",
                row.height, row.width, row.limits.min_pixels, row.limits.max_pixels
            );
            report.equal(&name, &found.map(|size| [size.height, size.width]), &expected);
        }
    }
    if folder.join("area_resize.json").is_file() {
        let rows: Vec<AreaResize> = json(folder, "area_resize.json")?;
        for row in &rows {
            let found = area_resize(Size::new(row.height, row.width), row.limits.into());
            let name = format!("area_resize.json {}x{} {}", row.height, row.width, row.limits.max_pixels);
            report.equal(&name, &[found.height, found.width], &row.out);
        }
    } else {
        report.push("area_resize.json", Status::Unknown, "not in the folder");
    }
    Ok(())
}
