//! Pictures made harder to read, for curves of robustness: six kinds, five levels each.

use std::io::Cursor;

use fieldmark_stream::RandomStream;
use image::{RgbImage, codecs::jpeg::JpegEncoder, imageops::FilterType};

/// The number of levels; 1 is the mildest.
pub const LEVELS: u8 = 5;

/// A way to make a picture harder to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Degradation {
    /// Gaussian blur, σ of 1 to 5 pixels of a picture of 112.
    Blur,
    /// Gaussian noise, σ of 16 to 80 grey levels.
    Noise,
    /// A shutter that lets through 1/2 to 1/8 of the light.
    Darkness,
    /// JPEG of quality 40 down to 3.
    Jpeg,
    /// A grey square on 8 to 40 % of the picture.
    Occlusion,
    /// Reduced to 1/2 to 1/8 of the side, and enlarged again.
    Resolution,
}

impl Degradation {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Blur, Self::Noise, Self::Darkness, Self::Jpeg, Self::Occlusion, Self::Resolution];

    /// The word in file names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Blur => "blur",
            Self::Noise => "noise",
            Self::Darkness => "darkness",
            Self::Jpeg => "jpeg",
            Self::Occlusion => "occlusion",
            Self::Resolution => "resolution",
        }
    }

    /// Makes a picture harder to read. `level` is from 1 to [`LEVELS`]; values outside are moved to the nearest of these.
    pub fn apply(self, picture: &RgbImage, level: u8, stream: &mut RandomStream) -> RgbImage {
        let level = level.clamp(1, LEVELS);
        let (index, strength) = (usize::from(level - 1), f32::from(level));
        let side = picture.width().min(picture.height());
        match self {
            Self::Blur => image::imageops::fast_blur(picture, strength * side as f32 / 112.0),
            Self::Noise => each(picture, |value| value + 16.0 * strength * normal(stream)),
            Self::Darkness => each(picture, |value| value * [0.5, 0.35, 0.25, 0.18, 0.125][index]),
            Self::Jpeg => jpeg(picture, [40, 20, 10, 5, 3][index]),
            Self::Occlusion => occlude(picture, 0.08 * strength, stream),
            Self::Resolution => {
                let small = |length: u32| ((length as f32 / [2.0, 3.0, 4.0, 6.0, 8.0][index]) as u32).max(1);
                let (width, height) = picture.dimensions();
                let reduced = image::imageops::resize(picture, small(width), small(height), FilterType::Triangle);
                image::imageops::resize(&reduced, width, height, FilterType::Triangle)
            }
        }
    }
}

fn each(picture: &RgbImage, mut change: impl FnMut(f32) -> f32) -> RgbImage {
    let mut changed = picture.clone();
    for value in changed.iter_mut() {
        *value = change(f32::from(*value)).round().clamp(0.0, 255.0) as u8;
    }
    changed
}

/// A draw from the standard normal distribution (Box and Muller).
fn normal(stream: &mut RandomStream) -> f32 {
    let radius = (-2.0 * (1.0 - stream.uniform()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * stream.uniform()).cos()) as f32
}

/// Through JPEG and back. A picture that cannot be encoded, which no size allowed here is, stays as it is.
fn jpeg(picture: &RgbImage, quality: u8) -> RgbImage {
    let mut bytes = Vec::new();
    let encoded = JpegEncoder::new_with_quality(&mut bytes, quality).encode_image(picture);
    let decoded =
        encoded.and_then(|()| image::ImageReader::with_format(Cursor::new(bytes), image::ImageFormat::Jpeg).decode());
    decoded.map_or_else(|_| picture.clone(), |decoded| decoded.to_rgb8())
}

/// A grey square over `share` of the picture.
fn occlude(picture: &RgbImage, share: f32, stream: &mut RandomStream) -> RgbImage {
    let (width, height) = picture.dimensions();
    let side = ((width as f32 * height as f32 * share).sqrt() as u32).clamp(1, width.min(height));
    let left = stream.below((width - side + 1) as usize) as u32;
    let top = stream.below((height - side + 1) as usize) as u32;
    let mut covered = picture.clone();
    for y in top..top + side {
        for x in left..left + side {
            covered.put_pixel(x, y, image::Rgb([127, 127, 127]));
        }
    }
    covered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{category::Category, colour::Colour, marks::Marks, scene};

    fn distance(one: &RgbImage, other: &RgbImage) -> f64 {
        let squares: f64 = one.iter().zip(other.iter()).map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2)).sum();
        (squares / one.len() as f64).sqrt()
    }

    #[test]
    fn each_level_is_further_from_the_picture_than_the_one_before() {
        let marks = Marks([Colour::Red, Colour::Yellow, Colour::Green, Colour::Blue, Colour::White]);
        let picture = scene::draw(Category::Bird, &marks, 112, &mut RandomStream::new(5, &[]));
        for kind in Degradation::ALL {
            let far = |level| {
                let mean: f64 = (0..8)
                    .map(|seed| {
                        distance(&picture, &kind.apply(&picture, level, &mut RandomStream::new(seed, &["level"])))
                    })
                    .sum();
                mean / 8.0
            };
            let distances: Vec<f64> = (1..=LEVELS).map(far).collect();
            assert!(distances[0] > 1.0 && distances.is_sorted_by(|a, b| a < b), "{kind:?}: {distances:?}");
        }
    }

    #[test]
    fn a_tiny_picture_is_degraded_too() {
        for (kind, level) in Degradation::ALL.into_iter().zip([0, 1, 3, 5, 9, 5]) {
            let changed = kind.apply(&RgbImage::new(1, 2), level, &mut RandomStream::new(0, &[]));
            assert_eq!(changed.dimensions(), (1, 2));
        }
    }
}
